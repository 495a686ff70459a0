import type { Layout, OverlapName, RunReport, ScheduleName } from '../engine/api.ts';
import type { PredictorName } from '../plan/plan.ts';
import { planRoleOf, type CompareRuns, type PlanRole, type ScheduleRuns } from './compare-runs.ts';
import { recommend, type Candidate, type Recommendation } from './compare-recommendation.ts';
import { byteFigures, type ByteFigures } from './json.ts';
import { type MeasuredPhases, measuredPhases, shufflingShare } from './phase-report.ts';
import { relativeLatency } from './relative-latency.ts';
import { ranksOf } from './shared-args.ts';
import { median, percentile } from './statistics.ts';

export interface Percentiles {
  p50: number;
  p99: number;
}

export interface ScheduleReport {
  name: ScheduleName;
  /** Solver of the plan it ran on. */
  plan: string;
  /** Null where the schedule does not predict. */
  predictor: PredictorName | null;
  bytes: ByteFigures;
  messages: number;
  /** Whether rows travelled compact. */
  compactRows: boolean;
  /** Steps of at most so many tokens went one-shot. */
  oneShotTokens: number;
  localActivationRate: number;
  remoteDevicesPerToken: number;
  loadImbalance: number;
  recall: number;
  /** Percentiles over requests, median over timed runs; so are the next two. */
  ttftMs: Percentiles;
  tpotMs: Percentiles;
  e2eMs: Percentiles;
  /** [repeats] p50 over requests of each timed run. */
  e2eMsByRound: number[];
  /** Median over rounds of that over the recommended schedule's in the same round; 1 for that one, null when none is recommended. */
  relativeLatency: number | null;
  /** Generated tokens over the whole run's time, median over timed runs. */
  tokensPerSecond: number;
  /** Where the ranks' time went, over all timed runs. */
  phases: MeasuredPhases;
  outputSha256: string;
  logitsSha256: string;
  /** To the one-rank run of the same plan: every kept logit, and the tokens of every run. */
  bitIdentical: boolean;
}

/** All that a schedule's own runs say. */
type MeasuredSchedule = Omit<ScheduleReport, 'relativeLatency'>;

/** What `smoe compare --json` prints. */
export interface CompareReport {
  model: string;
  layout: { dp: number; tp: number; ep: number };
  transport: string;
  network: string;
  plan: string;
  prompts: number;
  promptTokens: number;
  generatedTokens: number;
  repeats: number;
  overlap: readonly OverlapName[];
  threadsPerRank: number;
  schedules: ScheduleReport[];
  /** Token ids of all schedules and of the one-rank runs. */
  outputsIdentical: boolean;
  /** Between the plans, over positions both reached by the same tokens; null with one plan. */
  maxAbsLogitDifference: number | null;
  /** By the latencies measured in the same rounds (compare-recommendation.ts); null when one schedule was run. */
  recommendation: Recommendation | null;
}

export interface CompareFacts {
  model: string;
  layout: Layout;
  transport: string;
  network: string;
  plan: string;
  repeats: number;
  overlap: readonly OverlapName[];
  threadsPerRank: number;
  predictor: PredictorName;
  solvers: Record<PlanRole, string>;
}

/** Everything the comparison says, from the runs alone. */
export function assembleReport(facts: CompareFacts, runs: CompareRuns): CompareReport {
  const { layout, predictor, solvers, ...rest } = facts;
  const first = runs.schedules[0]!.checked;
  const references = Object.values(runs.references);
  const measured = runs.schedules.map((schedule) => scheduleReport(schedule, runs, predictor, solvers));
  const recommendation = recommend(measured.map(candidateOf), facts.network);
  const chosen = measured.find(({ name }) => name === recommendation?.schedule);
  const schedules = measured.map((schedule): ScheduleReport => ({
    ...schedule,
    relativeLatency: chosen === undefined ? null : relativeLatency(schedule.e2eMsByRound, chosen.e2eMsByRound).median,
  }));
  const hashes = new Set([...references, ...runs.schedules.flatMap(allRuns)].map(({ outputSha256 }) => outputSha256));
  return {
    ...rest,
    layout: { dp: layout.dataParallel, tp: layout.tensorParallel, ep: ranksOf(layout) },
    prompts: first.outputs.length,
    promptTokens: first.promptTokens,
    generatedTokens: first.generatedTokens,
    schedules,
    outputsIdentical: hashes.size === 1,
    maxAbsLogitDifference: references.length === 2 ? logitDifference(references[0]!, references[1]!) : null,
    recommendation,
  };
}

/** True when both checked lines of the report hold. */
export function isLossless({ outputsIdentical, schedules, maxAbsLogitDifference }: CompareReport): boolean {
  return (
    outputsIdentical && schedules.every(({ bitIdentical }) => bitIdentical) && !Number.isNaN(maxAbsLogitDifference)
  );
}

function candidateOf({ name, bytes, e2eMsByRound, loadImbalance, phases }: MeasuredSchedule): Candidate {
  return { name, bytes, e2eMsByRound, loadImbalance, shuffling: shufflingShare(phases) };
}

function scheduleReport(
  runs: ScheduleRuns,
  { references }: CompareRuns,
  predictor: PredictorName,
  solvers: CompareFacts['solvers'],
): MeasuredSchedule {
  const { schedule, checked, timed } = runs;
  const role = planRoleOf(schedule);
  const reference = references[role]!;
  const byRound = (field: 'ttftMs' | 'tpotMs' | 'e2eMs', share: number): number[] =>
    timed.map(({ outputs }) =>
      percentile(
        outputs.map((output) => output[field]),
        share,
      ),
    );
  const overRequests = (field: 'ttftMs' | 'tpotMs' | 'e2eMs'): Percentiles => ({
    p50: median(byRound(field, 0.5)),
    p99: median(byRound(field, 0.99)),
  });
  return {
    name: schedule,
    plan: solvers[role],
    predictor: schedule === 'speculative' ? predictor : null,
    bytes: byteFigures(checked.bytes),
    messages: checked.messages,
    compactRows: checked.compactRows,
    oneShotTokens: checked.oneShotTokens,
    localActivationRate: checked.localActivationRate,
    remoteDevicesPerToken: checked.remoteDevicesPerToken,
    loadImbalance: checked.loadImbalance,
    recall: schedule === 'speculative' ? checked.recall : Number.NaN,
    ttftMs: overRequests('ttftMs'),
    tpotMs: overRequests('tpotMs'),
    e2eMs: overRequests('e2eMs'),
    e2eMsByRound: byRound('e2eMs', 0.5),
    tokensPerSecond: median(timed.map(({ generatedTokens, wallMs }) => generatedTokens / (wallMs / 1000))),
    phases: measuredPhases(timed),
    outputSha256: checked.outputSha256,
    logitsSha256: checked.logitsSha256,
    bitIdentical:
      checked.logitsSha256 !== '' &&
      checked.logitsSha256 === reference.logitsSha256 &&
      allRuns(runs).every(({ outputSha256 }) => outputSha256 === reference.outputSha256),
  };
}

function allRuns({ checked, timed }: ScheduleRuns): RunReport[] {
  return [checked, ...timed];
}

/** Largest |a - b| over kept rows that both runs have at the same position after the same tokens. */
export function logitDifference(a: RunReport, b: RunReport): number {
  const vocabulary = a.logits!.length / a.logitsRows.length;
  const rowOf = new Map(b.logitsRows.map(({ request, position }, row) => [`${request} ${position}`, row]));
  const common = a.outputs.map(({ tokens }, request) => commonLength(tokens, b.outputs[request]!.tokens));
  /** Generated tokens that precede the logits of a row. */
  const generatedBefore = (run: RunReport, request: number, position: number): number => {
    const rows = run.logitsRows.filter((row) => row.request === request);
    const lastPosition = rows.at(-1)!.position;
    return run.outputs[request]!.tokens.length - 1 - (lastPosition - position);
  };
  let largest = 0;
  a.logitsRows.forEach(({ request, position }, row) => {
    const other = rowOf.get(`${request} ${position}`);
    if (other === undefined || generatedBefore(a, request, position) > common[request]!) return;
    const difference = largestDifference(
      a.logits!.subarray(row * vocabulary, (row + 1) * vocabulary),
      b.logits!.subarray(other * vocabulary, (other + 1) * vocabulary),
    );
    largest = Math.max(largest, difference);
  });
  return largest;
}

/** NaN when any difference is: Math.max keeps it, so that it cannot pass for no difference. */
function largestDifference(a: Float32Array, b: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
}

function commonLength(a: number[], b: number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
