import { resolve } from 'node:path';
import { purposes, type Purpose } from '../comm/communicator.ts';
import type { RankGroup } from '../comm/rank-group.ts';
import { ExitStatus, SmoeError } from '../errors.ts';
import { openCheckpoint } from '../model/checkpoint.ts';
import type { ModelConfig } from '../model/config.ts';
import { fingerprint as fingerprintOf } from '../model/fingerprint.ts';
import { assertPlanFits } from '../plan/fit.ts';
import { RequestPlacer } from '../predict/placement.ts';
import { phaseTimes } from '../timeline/phase-times.ts';
import { timelinesOf } from '../timeline/rank-timeline.ts';
import { statisticFields, type StatisticField } from '../schedule/routing-observer.ts';
import { Kernels } from '../kernels/kernels.ts';
import { overlapInMemory, type OverlapName, overlapNames } from './api.ts';
import type {
  GenerationRequest,
  PlanSource,
  RequestOutput,
  RunOptions,
  RunReport,
  Session,
  SessionOptions,
  StepRecord,
  TokenEvent,
} from './api.ts';
import { startRanks } from './launch.ts';
import { compactRowsPay, emulatedFigures, oneShotLimit } from './exchange-choices.ts';
import { assertLayoutFits } from './partition.ts';
import { pagesFor } from './page-cache.ts';
import type { ByMeasuring, RankData, RankEvent, RankJob, RankReport, RankStep } from './rank-protocol.ts';
import { hashOutputs, mergeLogits, mergeRouting, traceFromRecord } from './run-records.ts';

/**
 * Checks model, layout and plan, then starts one rank per device of the layout. Everything that can be refused is refused
 * before a rank is started.
 */
export async function openSession(options: SessionOptions): Promise<Session> {
  const [session] = await openSessions(options, [options]);
  return session!;
}

/**
 * A session for each plan, all on the same ranks, which end with the last of them. So runs under several plans are comparable: ranks
 * of their own may differ in speed, by nothing but being others. Each rank holds its share of the model under every plan, in as many memories; the sessions
 * run one at a time.
 */
export async function openSessions(
  options: Omit<SessionOptions, keyof PlanSource>,
  plans: readonly PlanSource[],
): Promise<Session[]> {
  const checkpoint = openCheckpoint(options.modelDirectory);
  const fingerprint = fingerprintOf(checkpoint);
  const { config } = checkpoint;
  checkpoint.close();
  assertLayoutFits(config, options.layout);
  const ranks = options.layout.dataParallel * options.layout.tensorParallel;
  for (const { plan } of plans) {
    assertPlanFits(plan, {
      modelFingerprint: fingerprint,
      layers: config.layers,
      experts: config.experts,
      topK: config.topK,
      vocabularySize: config.vocabularySize,
      ranks,
    });
  }
  const data: RankData = {
    modelDirectory: resolve(options.modelDirectory),
    layout: options.layout,
    plans: plans.map(({ plan, planFile }) => ({
      plan,
      ...(planFile === undefined ? {} : { planFile: resolve(planFile) }),
    })),
    stepTokens: options.maximumStepTokens,
    cachePositions: options.cachePositions,
    threads: options.threadsPerRank ?? 1,
  };
  let onEvent: (event: RankEvent) => void = () => {};
  const group = await startRanks(options, fingerprint, ranks, data, (event) => onEvent(event));
  const model = { config, fingerprint };
  const open = new Set<Session>();
  const sessions = plans.map(
    ({ plan, planFile }, index) =>
      new RankSession({ ...options, plan, ...(planFile === undefined ? {} : { planFile }) }, index, model, {
        group,
        open,
        listen: (listener) => (onEvent = listener),
      }),
  );
  for (const session of sessions) open.add(session);
  return sessions;
}

/** What sessions on the same ranks have in common. */
interface SharedRanks {
  group: RankGroup<RankJob, RankReport>;
  /** Those that are not closed. */
  open: Set<Session>;
  listen(listener: (event: RankEvent) => void): void;
}

class RankSession implements Session {
  readonly options: SessionOptions;
  readonly #config: ModelConfig;
  readonly #fingerprint: string;
  /** Index of its plan. */
  readonly #plan: number;
  readonly #ranks: SharedRanks;

  constructor(
    options: SessionOptions,
    plan: number,
    { config, fingerprint }: { config: ModelConfig; fingerprint: string },
    ranks: SharedRanks,
  ) {
    this.options = options;
    this.#config = config;
    this.#fingerprint = fingerprint;
    this.#plan = plan;
    this.#ranks = ranks;
  }

  get hosts(): readonly string[] {
    return this.#ranks.group.hosts;
  }

  get defaultOverlap(): readonly OverlapName[] {
    return this.#crossesLinks ? overlapNames : overlapInMemory;
  }

  get #crossesLinks(): boolean {
    return this.options.link !== undefined || new Set(this.hosts).size > 1;
  }

  /** Ranks of a host where links between hosts are to be measured. */
  get #byMeasuring(): ByMeasuring | undefined {
    const hosts = new Set(this.hosts).size;
    return hosts === 1 ? undefined : { ranksPerHost: this.hosts.length / hosts };
  }

  async run(options: RunOptions): Promise<RunReport> {
    const { requests } = options;
    const { group, open, listen } = this.#ranks;
    if (!open.has(this)) throw new SmoeError('RANK_GROUP_CLOSED', 'the session has been closed');
    requests.forEach((request, i) => this.#assertRequestFits(request, i));
    const job = this.#job(options);
    if (options.onToken !== undefined) listen(tokenForwarder(group.size, options.onToken));
    try {
      const reports = await group.run(job, options.signal === undefined ? {} : { signal: options.signal });
      return this.#report(options, job, reports);
    } finally {
      listen(() => {});
    }
  }

  async close(): Promise<void> {
    const { group, open } = this.#ranks;
    open.delete(this);
    if (open.size === 0) await group.close();
  }

  #assertRequestFits(request: GenerationRequest, index: number): void {
    const refuse = (code: string, message: string, hint: string): never => {
      throw new SmoeError(code, `request ${index}: ${message}`, { hint, exitStatus: ExitStatus.usage });
    };
    const { tokens, maxNewTokens } = request;
    const { vocabularySize, maximumPositions } = this.#config;
    if (tokens.length === 0) refuse('PROMPT_EMPTY', 'the prompt has no tokens', 'give at least one token of text');
    const bad = tokens.findIndex((token) => token < 0 || token >= vocabularySize);
    if (bad !== -1) {
      refuse(
        'PROMPT_TOKEN',
        `token ${tokens[bad]} at position ${bad} is outside the vocabulary of ${vocabularySize}`,
        'use the model’s own tokenizer',
      );
    }
    if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
      refuse('REQUEST_LENGTH', `${maxNewTokens} new tokens were asked for`, 'ask for at least 1');
    }
    if (tokens.length + maxNewTokens > maximumPositions) {
      refuse(
        'PROMPT_TOO_LONG',
        `${tokens.length} prompt tokens and ${maxNewTokens} new ones exceed the model's context of ${maximumPositions}`,
        'shorten the prompt or ask for fewer new tokens',
      );
    }
    if (pagesFor(tokens.length + maxNewTokens) > pagesFor(this.options.cachePositions)) {
      refuse(
        'PROMPT_TOO_LONG',
        `needs more than the ${this.options.cachePositions} cache positions of this session`,
        'open it with more',
      );
    }
  }

  #job(options: RunOptions): RankJob {
    const { requests } = options;
    const firstRecordRow = new Int32Array(requests.length);
    let rows = 0;
    requests.forEach((request, i) => {
      firstRecordRow[i] = rows;
      rows += request.tokens.length + request.maxNewTokens;
    });
    const placement = options.placement ?? this.#placement(options);
    return {
      plan: this.#plan,
      schedule: options.schedule,
      predictor: options.predictor,
      requests,
      placement,
      firstRecordRow,
      recordRouting: options.recordRouting,
      overlap: options.overlap ?? this.defaultOverlap,
      compactRows: this.#compactRows(options),
      oneShotTokens: this.#oneShotTokens(options),
      ...(options.microbatchTokens === undefined ? {} : { microbatchTokens: options.microbatchTokens }),
      logits: options.logits,
      streaming: options.onToken !== undefined,
      timelineSteps: options.timelineSteps ?? 0,
    };
  }

  #compactRows({ schedule, compactRows }: RunOptions): RankJob['compactRows'] {
    const { hiddenSize } = this.#config;
    const able = Kernels.canCompact(hiddenSize);
    if (compactRows === undefined) {
      if (schedule !== 'speculative' || !able || !this.#crossesLinks) return false;
      return this.#byMeasuring ?? compactRowsPay(emulatedFigures(this.options.link));
    }
    if (!compactRows || able) return compactRows && (schedule === 'dedup' || schedule === 'speculative');
    throw new SmoeError('COMPACT_ROWS', `rows of ${hiddenSize} values cannot be made compact`, {
      hint: 'leave compact rows off: the hidden size must be a multiple of 16',
      exitStatus: ExitStatus.usage,
    });
  }

  /** Every rank has every row then, in buffers made for a slice of the longest step. */
  #oneShotTokens({ schedule, oneShotTokens }: RunOptions): RankJob['oneShotTokens'] {
    const { layout, link, maximumStepTokens } = this.options;
    const { dataParallel, tensorParallel: ranks } = layout;
    if ((schedule !== 'dedup' && schedule !== 'speculative') || dataParallel > 1 || ranks === 1) return 0;
    const most = Math.ceil(maximumStepTokens / ranks);
    if (oneShotTokens !== undefined) return Math.min(oneShotTokens, most);
    if (schedule === 'dedup') return 0;
    const byMeasuring = this.#byMeasuring;
    if (byMeasuring !== undefined) return { ...byMeasuring, most };
    const ranksPerHost = link?.ranksPerNode ?? ranks;
    const { hiddenSize } = this.#config;
    return Math.min(most, oneShotLimit(emulatedFigures(link), { ranks, ranksPerHost, hiddenSize }));
  }

  /** Round robin, or by expert affinity under `speculative`. */
  #placement({ schedule, requests }: RunOptions): Int32Array {
    const { dataParallel } = this.options.layout;
    if (schedule !== 'speculative' || dataParallel === 1) return Int32Array.from(requests, (_, i) => i % dataParallel);
    const placer = new RequestPlacer(this.options.plan, dataParallel);
    return Int32Array.from(requests, (request) => placer.place(request.tokens));
  }

  #report(options: RunOptions, job: RankJob, reports: RankReport[]): RunReport {
    const { requests } = options;
    const outputs: RequestOutput[] = [];
    for (const report of reports) {
      for (const { request, tokens, finishReason, tokenMs } of report.outputs) {
        const last = tokenMs.at(-1)!;
        outputs[request] = {
          tokens,
          finishReason,
          dataParallelRank: job.placement[request]!,
          ttftMs: tokenMs[0]!,
          tpotMs: tokenMs.length > 1 ? (last - tokenMs[0]!) / (tokenMs.length - 1) : Number.NaN,
          e2eMs: last,
        };
      }
    }
    const bytes = Object.fromEntries(
      purposes.map((purpose) => [purpose, sum(reports, (report) => report.bytes[purpose])]),
    );
    const layers = Array.from({ length: this.#config.layers }, (_, layer) => layerFigures(reports, layer));
    const { tensorParallel } = this.options.layout;
    const logits = mergeLogits(reports, job.logits, outputs, requests, this.#config.vocabularySize, tensorParallel);
    const recordRows = sum(requests, (request) => request.tokens.length + request.maxNewTokens);
    const routing = job.recordRouting ? mergeRouting(reports, recordRows, this.#config) : undefined;
    const steps = reports[0]!.steps.map((_, i) => mergeSteps(reports.map((report) => report.steps[i]!)));
    return {
      outputs,
      bytes: { ...(bytes as Record<Purpose, number>), total: sum(purposes, (purpose) => bytes[purpose]!) },
      messages: sum(reports, (report) => report.messages),
      compactRows: reports[0]!.compactRows,
      oneShotTokens: reports[0]!.oneShotTokens,
      localActivationRate: mean(layers.map((layer) => layer.localActivationRate)),
      remoteDevicesPerToken: mean(layers.map((layer) => layer.remoteDevicesPerToken)),
      loadImbalance: mean(layers.map((layer) => layer.loadImbalance)),
      recall: mean(layers.map((layer) => layer.recall)),
      layers,
      promptTokens: sum(requests, (request) => request.tokens.length),
      generatedTokens: sum(outputs, (output) => output.tokens.length),
      wallMs: Math.max(...reports.map((report) => report.wallMs)),
      steps,
      phases: reports.map((report) => phaseTimes(report.phases)),
      timeline: timelinesOf(reports.map((report) => report.timeline)),
      outputSha256: hashOutputs(outputs),
      ...logits,
      trace:
        routing === undefined
          ? undefined
          : traceFromRecord(routing, job.firstRecordRow, requests, outputs, this.#config, this.#fingerprint),
      routing,
      firstRecordRow: job.firstRecordRow,
    };
  }
}

function layerFigures(reports: RankReport[], layer: number): RunReport['layers'][number] {
  const total = (field: StatisticField): number => sum(reports, (report) => figure(report, layer, field));
  const computed = reports.map((report) => figure(report, layer, 'computedRows'));
  return {
    localActivationRate: total('localPairs') / total('pairs'),
    remoteDevicesPerToken: total('remoteRanks') / total('tokens'),
    loadImbalance: Math.max(...computed) / mean(computed),
    recall: total('homeNeeded') / total('tokens'),
  };
}

function figure(report: RankReport, layer: number, field: StatisticField): number {
  return report.statistics[layer * statisticFields.length + statisticFields.indexOf(field)]!;
}

/** Times are the slowest rank's, bytes those of all ranks. */
function mergeSteps(steps: RankStep[]): StepRecord {
  // Tensor ranks of a group report the same tokens; they are counted once, as shares.
  const slowest = Math.max(...steps.map((step) => step.milliseconds));
  const communicationMs = Math.max(...steps.map((step) => step.waitMs));
  const computeMs = Math.max(...steps.map((step) => step.milliseconds - step.waitMs));
  const prefill = steps.some((step) => step.prefillTokens > 0);
  const decode = steps.some((step) => step.tokens > step.prefillTokens);
  return {
    phase: prefill && decode ? 'mixed' : prefill ? 'prefill' : 'decode',
    tokens: sum(steps, (step) => step.tokens / step.groupRanks),
    milliseconds: slowest,
    computeMs,
    communicationMs,
    bytes: Object.fromEntries(
      purposes.map((purpose) => [purpose, sum(steps, (step) => step.bytes[purpose])]),
    ) as Record<Purpose, number>,
  };
}

/** Holds token events back until every rank has reported the step, so that each carries the whole step's figures. */
function tokenForwarder(ranks: number, onToken: (event: TokenEvent) => void): (event: RankEvent) => void {
  const pending = new Map<number, { steps: RankStep[]; tokens: Extract<RankEvent, { type: 'token' }>[] }>();
  return (event) => {
    const entry = pending.get(event.index) ?? { steps: [], tokens: [] };
    pending.set(event.index, entry);
    if (event.type === 'token') entry.tokens.push(event);
    else entry.steps.push(event.step);
    if (entry.steps.length < ranks) return;
    pending.delete(event.index);
    const step = mergeSteps(entry.steps);
    for (const { request, token, generated, finishReason } of entry.tokens) {
      onToken({ request, token, index: generated, finishReason, step });
    }
  };
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}

function mean(values: number[]): number {
  return sum(values, (value) => value) / values.length;
}
