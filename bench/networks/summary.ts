/** The figures that the issue asks for, from the results alone. Ratios are medians of ratios within a round. */
import { type Candidate, recommend } from '../../src/cli/compare-recommendation.ts';
import { relativeLatency } from '../../src/cli/relative-latency.ts';
import type { ScheduleName } from '../../src/engine/api.ts';
import { median, quantile } from '../machine.ts';
import { networks, ranks } from './matrix.ts';
import type { CellResult, Results, SetupResult } from './results.ts';

export interface Bar {
  what: string;
  bar: string;
  measured: string;
  met: boolean | undefined;
}

export const expertBytes = ({ bytes }: SetupResult): number => bytes.dispatch + bytes.combine;

export function setupOf(cell: CellResult, name: string): SetupResult | undefined {
  return cell.setups.find(({ setup }) => setup === name);
}

/** Latency of one setup over another's, round by round: [median, lower quartile, upper quartile]. */
export function latencyRatio(cell: CellResult, of: string, to: string): [number, number, number] {
  const [mine, other] = [setupOf(cell, of)!.samples.e2eMs, setupOf(cell, to)!.samples.e2eMs];
  const ratio = relativeLatency(mine, other);
  return [ratio.median, ratio.lowerQuartile, ratio.upperQuartile];
}

export const kindOf = (cell: CellResult): 'memory' | 'testbed' | 'emulated' =>
  cell.network === 'memory' ? 'memory' : cell.network.startsWith('emulated-') ? 'emulated' : 'testbed';

export const stepsMs = ({ samples }: SetupResult): number[] =>
  samples.prefillStepsMs.map((prefill, round) => prefill + samples.decodeStepsMs[round]!);

/** Share of latency that a setup's bytes alone take at the links' rate, measured where it was, spread evenly; 0 over memory. */
export function byteShare(results: Results, cell: CellResult, setup: SetupResult): number {
  const network = networks.find(({ name }) => name === cell.network)!;
  if (network.rateMbit === null) return 0;
  const measured = results.networks.find((item) => item.network === cell.network)?.measured[0];
  const bytesPerMs = ((measured?.rateMbit ?? network.rateMbit) * 1e6) / 8 / 1000;
  const leavingNodes = (ranks - network.ranksPerNode) / (ranks - 1);
  const perLink = (setup.bytes.total * leavingNodes) / (ranks / network.ranksPerNode);
  return perLink / bytesPerMs / median(setup.samples.e2eMs);
}

/** Cells where the bytes of `dedup` take more than half of its time. */
export function isBandwidthBound(results: Results, cell: CellResult): boolean {
  return byteShare(results, cell, setupOf(cell, baseline)!) > 0.5;
}

/** What `smoe compare` would recommend of the four schedules it runs by default. */
function recommended(cell: CellResult): ScheduleName {
  const names = {
    'deepspeed-moe': 'deepspeed-moe',
    alltoallv: 'alltoallv',
    dedup: baseline,
    speculative: ours,
  } as const;
  const candidates = Object.entries(names).map(([name, setup]): Candidate => {
    const result = setupOf(cell, setup)!;
    const { shuffle, predict } = shuffleShare(result);
    return {
      name: name as ScheduleName,
      ...{ bytes: result.bytes, e2eMsByRound: result.samples.e2eMs, loadImbalance: result.loadImbalance },
      shuffling: shuffle + predict,
    };
  });
  return recommend(candidates, cell.network)!.schedule;
}

export const baseline = 'dedup, contiguous';
export const ours = 'speculative';
export const oursWithReplicas = 'speculative, 25 % replicas';
export const baselineOverlapped: string = `${baseline}, overlapped`;
export const oursOverlapped: string = `${ours}, overlapped`;
export const oursCompact: string = `${ours}, compact rows`;
export const oursCompactWithReplicas: string = `${oursWithReplicas}, compact rows`;
const oursOverlappedCompact = `${oursOverlapped}, compact rows`;
export const oursOneShot: string = `${ours}, one-shot`;

/** What the engine does when nothing else is asked for: over links rows are compact, steps long enough overlap, short ones go one-shot. */
export function byDefault(cell: CellResult): string {
  return [oursOneShot, oursOverlappedCompact, oursCompact].find((name) => setupOf(cell, name) !== undefined) ?? ours;
}

/** The faster of the two schedules without deduplication, in a cell. */
export function betterOldSchedule(cell: CellResult): string {
  const old = ['deepspeed-moe', 'alltoallv'];
  return old.toSorted((a, b) => median(setupOf(cell, a)!.samples.e2eMs) - median(setupOf(cell, b)!.samples.e2eMs))[0]!;
}

export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`;
const fall = (ratio: number): number => 1 - ratio;
const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

export function bars(results: Results): Bar[] {
  const { cells } = results;
  const shaped = cells.filter((cell) => kindOf(cell) === 'testbed');
  const tensorParallel = cells.filter(({ layout }) => layout === 'TP4');
  const list: Bar[] = [];
  const add = (what: string, bar: string, measured: string, met: boolean | undefined): void => {
    list.push({ what, bar, measured, met });
  };
  /** The smallest fall of expert bytes, over cells. */
  const byteFall = (within: CellResult[], mine: string, to: string, least: number): void => {
    if (within.length === 0) return;
    const falls = within.map((cell) => ({
      cell,
      share: fall(expertBytes(setupOf(cell, mine)!) / expertBytes(setupOf(cell, to)!)),
    }));
    const worst = falls.toSorted((a, b) => a.share - b.share)[0]!;
    const range = `${percent(worst.share)} (${worst.cell.layout} ${worst.cell.workload}) to ${percent(Math.max(...falls.map(({ share }) => share)))} below`;
    add(
      `EP bytes, \`${mine}\` against \`${to}\`${within === cells ? '' : ', TP4'}`,
      `at least ${percent(least, 0)} below`,
      `${range}${missed(worst.share, least)}`,
      worst.share >= least,
    );
  };
  byteFall(cells, ours, 'deepspeed-moe', 0.72);
  byteFall(tensorParallel, ours, 'alltoallv', 0.66);
  byteFall(tensorParallel, oursWithReplicas, 'alltoallv', 0.75);
  const compact = tensorParallel.filter((cell) => setupOf(cell, oursCompactWithReplicas) !== undefined);
  byteFall(compact, oursCompactWithReplicas, 'alltoallv', 0.75);

  if (shaped.length > 0) {
    for (const mine of [ours, oursWithReplicas]) {
      const falls = shaped.map((cell) => fall(latencyRatio(cell, mine, betterOldSchedule(cell))[0]));
      add(
        `end-to-end latency, \`${mine}\` against the better of \`deepspeed-moe\` and \`alltoallv\`, mean over ${shaped.length} cells on shaped networks`,
        'at least 31 % lower',
        `${percent(mean(falls))} lower (${percent(Math.min(...falls))} to ${percent(Math.max(...falls))})${missed(mean(falls), 0.31)}`,
        mean(falls) >= 0.31,
      );
    }
    const byDefaultFalls = shaped.map((cell) => fall(latencyRatio(cell, byDefault(cell), betterOldSchedule(cell))[0]));
    add(
      'the same, `speculative` as the engine runs it by default: compact rows, overlapped where steps are long enough, one-shot where they are short enough (the older two have none of it)',
      '-',
      `${percent(mean(byDefaultFalls))} lower (${percent(Math.min(...byDefaultFalls))} to ${percent(Math.max(...byDefaultFalls))})`,
      mean(byDefaultFalls) >= 0.31,
    );
    const compactFalls = shaped.map((cell) => fall(latencyRatio(cell, oursCompact, ours)[0]));
    add(
      'compact rows by themselves: `speculative` with them against without, neither overlapped',
      '-',
      `${percent(mean(compactFalls))} lower (${percent(Math.min(...compactFalls))} to ${percent(Math.max(...compactFalls))})`,
      mean(compactFalls) >= 0,
    );
    const bothOverlapped = shaped.filter((cell) => setupOf(cell, oursOverlapped) !== undefined);
    if (bothOverlapped.length > 0) {
      const falls = bothOverlapped.map((cell) => fall(latencyRatio(cell, oursOverlapped, baselineOverlapped)[0]));
      add(
        `end-to-end latency, both overlapped: \`${ours}\` against \`${baseline}\`, mean over ${bothOverlapped.length} cells`,
        '-',
        `${percent(mean(falls))} lower (${percent(Math.min(...falls))} to ${percent(Math.max(...falls))})`,
        mean(falls) >= 0,
      );
    }
    const overlappedBaseline = (cell: CellResult): string =>
      setupOf(cell, baselineOverlapped) === undefined ? baseline : baselineOverlapped;
    const againstBaseline = shaped.map((cell) =>
      fall(latencyRatio(cell, byDefault(cell), overlappedBaseline(cell))[0]),
    );
    add(
      `end-to-end latency, \`${ours}\` as it runs by default against \`${baseline}\`, overlapped where steps are long enough, mean over ${shaped.length} cells`,
      '-',
      `${percent(mean(againstBaseline))} lower (${percent(Math.min(...againstBaseline))} to ${percent(Math.max(...againstBaseline))})`,
      mean(againstBaseline) >= 0,
    );
    const bound = shaped.filter((cell) => isBandwidthBound(results, cell));
    for (const mine of [ours, oursWithReplicas, oursCompact]) {
      const higher = bound.filter((cell) => latencyRatio(cell, mine, baseline)[0] >= 1);
      const falls = bound.map((cell) => fall(latencyRatio(cell, mine, baseline)[0]));
      add(
        `end-to-end latency, \`${mine}\` against \`${baseline}\`, in the ${bound.length} bandwidth-bound cells`,
        'lower in every one',
        bound.length === 0
          ? 'no such cell'
          : `lower in ${bound.length - higher.length}, by ${percent(mean(falls))} on average` +
              (higher.length === 0
                ? ''
                : `; not in ${higher.map((cell) => `${cell.cell} (+${percent(latencyRatio(cell, mine, baseline)[0] - 1)})`).join(', ')}`),
        bound.length === 0 ? undefined : higher.length === 0,
      );
    }
  }
  const slowerCells = cells.filter(
    (cell) => kindOf(cell) !== 'emulated' && latencyRatio(cell, ours, baseline)[0] > 1.03,
  );
  const slower = slowerCells.map((cell) => `${cell.cell} (+${percent(latencyRatio(cell, ours, baseline)[0] - 1)})`);
  const unwarned = slowerCells.filter((cell) => recommended(cell) === 'speculative').length;
  add(
    `cells where \`${ours}\` is more than 3 % slower than \`${baseline}\``,
    'none, or `compare` recommends the other',
    slower.length === 0
      ? 'none'
      : `${slower.length}: ${slower.join(', ')}; \`compare\` recommends another there` +
          (unwarned === 0 ? '' : `, but not in ${unwarned}`),
    unwarned === 0,
  );

  const errors = shaped.flatMap((cell) => predictionErrors(results, cell));
  if (errors.length > 0) {
    const middle = median(errors.map(Math.abs));
    add(
      `simulator, predicted against measured step time, ${errors.length} runs on shaped networks`,
      'median error at most 15 %',
      `${percent(middle)} (quartiles ${percent(quantile(errors.map(Math.abs), 0.25))} and ${percent(quantile(errors.map(Math.abs), 0.75))}, bias ${percent(median(errors))})${missed(-middle, -0.15)}`,
      middle <= 0.15,
    );
  }
  const wrong = cells.flatMap(({ cell, setups }) =>
    setups.filter(({ bitIdentical }) => !bitIdentical).map(({ setup }) => `${cell}, ${setup}`),
  );
  add(
    'bits against the one-rank run of the same plan',
    'equal in every cell',
    wrong.length === 0
      ? `equal in ${cells.reduce((sum, { setups }) => sum + setups.length, 0)} runs of ${cells.length} cells`
      : `different in ${wrong.join('; ')}`,
    wrong.length === 0,
  );
  const shuffled = cells.filter(({ layout }) => layout !== 'DP4').map((cell) => shuffleShare(setupOf(cell, ours)!));
  if (shuffled.length > 0) {
    const most = Math.max(...shuffled.map(({ shuffle }) => shuffle));
    add(
      'shuffling: choosing slices, permuting and undoing, share of step time',
      'at most 2 %',
      `${percent(median(shuffled.map(({ shuffle }) => shuffle)), 2)} (median), ${percent(most, 2)} (most)${missed(-most, -0.02)}; predicting takes ${percent(median(shuffled.map(({ predict }) => predict)), 2)} (median) besides`,
      most <= 0.02,
    );
  }
  return list;
}

function missed(value: number, bar: number): string {
  return value >= bar ? '' : `; missed by ${percent(bar - value)}`;
}

/** Shares of a setup's step time. */
export function shuffleShare({ samples }: SetupResult): { shuffle: number; predict: number } {
  const { rankMs, shuffleMs, predictMs } = samples;
  const share = (part: number[]): number => median(part.map((value, round) => value / rankMs[round]!));
  return { shuffle: share(shuffleMs), predict: share(predictMs) };
}

export function measuredStepMs(setup: SetupResult): number {
  return median(stepsMs(setup)) / (setup.prefillSteps + setup.decodeSteps);
}

/** Predicted over measured, less one, of every setup of a cell. */
export function predictionErrors(results: Results, cell: CellResult): number[] {
  const predicted = results.predictedStepMs?.[cell.cell];
  if (predicted === undefined) return [];
  return cell.setups
    .filter(({ setup }) => predicted[setup] !== undefined)
    .map((setup) => predicted[setup.setup]! / measuredStepMs(setup) - 1);
}
