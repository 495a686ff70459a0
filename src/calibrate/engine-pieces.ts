import { decodeCluster } from '../cluster/cluster-file.ts';
import { launchRanks, type RankGroup } from '../comm/rank-group.ts';
import type { GenerationRequest, Layout, RunReport } from '../engine/api.ts';
import type { RankData, RankJob } from '../engine/rank-protocol.ts';
import { openSession } from '../engine/session.ts';
import type { ModelConfig } from '../model/config.ts';
import type { Plan } from '../plan/plan.ts';
import type { Work } from '../simulate/compute-clock.ts';
import { recordedHomes } from '../simulate/homes.ts';
import { modelShape } from '../simulate/model-shape.ts';
import { recordedRun } from '../simulate/recorded-run.ts';
import { simulate } from '../simulate/simulate.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { MeasuredWork } from './device-rates.ts';
import type { TimedStep } from './engine-rank.ts';
import { undisturbed } from './undisturbed.ts';

/** A run of which either the prompts or the decoding is timed. */
interface Piece {
  prompts: number;
  promptTokens: number;
  /** 0 = the prompts are timed. */
  decoded: number;
}

/** Few and many rows, short and long contexts, with and without weights read for one row alone. */
const pieces: readonly Piece[] = [
  { prompts: 1, promptTokens: 32, decoded: 0 },
  { prompts: 1, promptTokens: 128, decoded: 0 },
  { prompts: 1, promptTokens: 512, decoded: 0 },
  { prompts: 4, promptTokens: 128, decoded: 0 },
  { prompts: 1, promptTokens: 960, decoded: 0 },
  { prompts: 1, promptTokens: 16, decoded: 24 },
  { prompts: 8, promptTokens: 16, decoded: 16 },
  { prompts: 32, promptTokens: 16, decoded: 12 },
  { prompts: 4, promptTokens: 512, decoded: 12 },
];
/** Prompts of a piece are one step, so that no step both reads prompts and decodes. */
const stepTokens = 2048;
const cachePositions = 4096;
const warmUps = 1;
const oneRank: Layout = { dataParallel: 1, tensorParallel: 1 };
/** Work does not depend on rates. */
const anyCluster = decodeCluster(
  '{ device: { gigaflops: 1, memoryGBps: 1, memoryGB: 1e6 }, nodes: [{ devices: 1 }] }',
  '',
);

export interface PieceOptions {
  modelDirectory: string;
  config: ModelConfig;
  /** Every expert on one device. */
  plan: Plan;
  /** Text to draw prompts from. */
  tokens: Int32Array;
  /** Engines that run at once, one thread each: as many as the machine has cores, so that rates are those of a busy machine. */
  copies: number;
  repeats: number;
  signal: AbortSignal;
  onProgress: (done: number, total: number) => void;
}

/** Times the engine on one rank. The trace is that of the largest prompt. */
export async function measureEngine(options: PieceOptions): Promise<{ measured: MeasuredWork[]; trace: RoutingTrace }> {
  const ownPieces = pieces.map((piece) => fitted(piece, options.config));
  const reports = await recordPieces(ownPieces, options);
  // Groups of one rank, so that they do not wait for each other.
  const groups: RankGroup<RankJob, TimedStep[]>[] = [];
  try {
    for (let copy = 0; copy < options.copies; copy++) groups.push(await launchTimedRank(options));
    const measured: MeasuredWork[] = [];
    for (const [i, piece] of ownPieces.entries()) {
      options.onProgress(i, ownPieces.length);
      const seconds = await timePiece(groups, piece, options);
      const work = workOf(reports[i]!, piece, options);
      measured.push({ name: nameOf(piece), work, seconds });
    }
    const traces = reports.map(({ trace }) => trace!);
    return { measured, trace: traces.reduce((most, trace) => (trace.length > most.length ? trace : most)) };
  } finally {
    await Promise.all(groups.map((group) => group.close()));
  }
}

/** What the engine does in each piece: every later run does the same. */
async function recordPieces(
  ownPieces: Piece[],
  { modelDirectory, plan, tokens, signal }: PieceOptions,
): Promise<RunReport[]> {
  const session = await openSession({
    ...{ modelDirectory, layout: oneRank, plan, transport: 'threads', maximumStepTokens: stepTokens, cachePositions },
  });
  const reports: RunReport[] = [];
  try {
    for (const piece of ownPieces) {
      const requests = requestsOf(piece, tokens);
      const run = { schedule: 'dedup', predictor: 'random', logits: 'none', requests, signal } as const;
      reports.push(await session.run({ ...run, recordRouting: true }));
    }
  } finally {
    await session.close();
  }
  return reports;
}

function launchTimedRank({ modelDirectory, plan }: PieceOptions): Promise<RankGroup<RankJob, TimedStep[]>> {
  const entry = new URL(import.meta.url.endsWith('.ts') ? './engine-rank.ts' : './engine-rank.js', import.meta.url);
  const data: RankData = { modelDirectory, layout: oneRank, plans: [{ plan }], stepTokens, cachePositions };
  return launchRanks({ size: 1, entry, data });
}

async function timePiece(
  groups: RankGroup<RankJob, TimedStep[]>[],
  piece: Piece,
  { tokens, repeats, signal }: PieceOptions,
): Promise<number> {
  const job = jobOf(requestsOf(piece, tokens));
  const seconds: number[] = [];
  for (let repeat = -warmUps; repeat < repeats; repeat++) {
    const reports = await Promise.all(groups.map((group) => group.run(job, { signal })));
    if (repeat < 0) continue;
    for (const [steps] of reports) {
      const timed = steps!.filter(({ prefillTokens }) => piece.decoded === 0 || prefillTokens === 0);
      seconds.push(timed.reduce((sum, step) => sum + step.seconds, 0));
    }
  }
  return undisturbed(seconds);
}

/** For one data-parallel group. */
function jobOf(requests: GenerationRequest[]): RankJob {
  return {
    ...{
      schedule: 'dedup',
      predictor: 'random',
      logits: 'none',
      recordRouting: false,
      compactRows: false,
      oneShotTokens: 0,
    },
    ...{
      plan: 0,
      requests,
      placement: new Int32Array(requests.length),
      overlap: [],
      timelineSteps: 0,
      streaming: true,
    },
    firstRecordRow: new Int32Array(requests.length),
  };
}

function nameOf({ prompts, promptTokens, decoded }: Piece): string {
  if (decoded === 0) return `${prompts} x ${promptTokens} prompt tokens`;
  return `${decoded} tokens for each of ${prompts}, after ${promptTokens}`;
}

function fitted(piece: Piece, { maximumPositions }: ModelConfig): Piece {
  return { ...piece, promptTokens: Math.min(piece.promptTokens, maximumPositions - piece.decoded - 1) };
}

function requestsOf({ prompts, promptTokens, decoded }: Piece, tokens: Int32Array): GenerationRequest[] {
  return Array.from({ length: prompts }, (_, i) => {
    const first = Math.floor((i * Math.max(0, tokens.length - promptTokens)) / prompts);
    return {
      tokens: tokens.slice(first, first + promptTokens),
      maxNewTokens: decoded + 1,
      sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
      ...{ stopStrings: [], ignoreEnd: true, label: '' },
    };
  });
}

function workOf(report: RunReport, { decoded }: Piece, { config, plan }: PieceOptions): Work[] {
  const { trace, steps, homes } = recordedRun(report, oneRank);
  const work: Work[] = [];
  simulate({
    ...{ trace, shape: modelShape(config), plan, schedule: 'dedup', predictor: 'random', layout: oneRank },
    ...{ composition: { stepTokens, decodeBatch: stepTokens, phases: 'recorded' }, overlap: false },
    clusters: [anyCluster],
    recorded: { homes: recordedHomes(homes, config.layers), steps },
    onWork: (own, _rank, step) => {
      if (decoded === 0 || report.steps[step]!.phase === 'decode') work.push(own);
    },
  });
  return work;
}
