import type { ScheduleName } from '../engine/api.ts';
import { formatChange, formatMilliseconds, formatNumber, formatShare } from './format.ts';
import { relativeLatency, type RelativeLatency } from './relative-latency.ts';
import { median } from './statistics.ts';

export interface Recommendation {
  schedule: ScheduleName;
  reason: string;
}

/** What is known of a schedule that might be recommended. */
export interface Candidate {
  name: ScheduleName;
  bytes: { total: number };
  /** [rounds] end-to-end latency of a run, p50 over its requests, milliseconds; round i of all candidates belongs together. */
  e2eMsByRound: readonly number[];
  /** Expert rows of the busiest rank over the mean rank's. */
  loadImbalance: number;
  /** Share of the ranks' time that predicting, choosing slices and permuting take. */
  shuffling: number;
}

/** Latencies whose ratio is within this of 1 are equal. */
const equalWithin = 0.01;
/** Up to this, latencies are equal too where rounds do not agree on which is longer. */
const equalIfUnclearWithin = 0.03;

/**
 * Which schedule to run here; null when there is nothing to choose from.
 *
 * Latencies are compared by the median over rounds of the ratio within a round. A schedule is a contender when it is as fast as every other
 * one: at most 1 % slower, or at most 3 % where in a quarter of the rounds or more it is not slower at all. Of the contenders
 * the one that sends least is recommended. So what is more than 3 % slower than another one never is, whatever it saves. (Only
 * rounds that scatter wildly leave no contender, each schedule being slower than some other; then it is the one least behind.)
 *
 * @param network what the report calls the network
 */
export function recommend(candidates: Candidate[], network: string): Recommendation | null {
  if (candidates.length < 2) return null;
  const contenders = candidates.filter((candidate) => candidates.every((other) => isAsFast(candidate, other)));
  const leastBehind = (): Candidate =>
    candidates.toSorted((a, b) => mostBehind(a, candidates) - mostBehind(b, candidates))[0]!;
  const chosen = contenders.toSorted((a, b) => a.bytes.total - b.bytes.total)[0] ?? leastBehind();
  const speculative = candidates.find(({ name }) => name === 'speculative');
  const against = speculative === undefined || speculative === chosen ? undefined : speculative;
  return { schedule: chosen.name, reason: against ? whyNot(against, chosen, network) : why(chosen, candidates) };
}

function compared(candidate: Candidate, other: Candidate): RelativeLatency {
  return relativeLatency(candidate.e2eMsByRound, other.e2eMsByRound);
}

function isAsFast(candidate: Candidate, other: Candidate): boolean {
  const ratio = compared(candidate, other);
  if (ratio.median <= 1 + equalWithin) return true;
  return ratio.median <= 1 + equalIfUnclearWithin && ratio.lowerQuartile <= 1;
}

function mostBehind(candidate: Candidate, all: Candidate[]): number {
  return Math.max(...all.map((other) => compared(candidate, other).median));
}

function why(chosen: Candidate, candidates: Candidate[]): string {
  const [next] = candidates
    .filter((other) => other !== chosen)
    .sort((a, b) => compared(a, chosen).median - compared(b, chosen).median);
  const latency = `e2e p50 ${formatMilliseconds(median(chosen.e2eMsByRound))}`;
  const ratio = compared(chosen, next!);
  const bytes = `bytes ${formatChange(chosen.bytes.total, next!.bytes.total)}`;
  return ratio.median > 1
    ? `${latency}, not clearly slower than ${next!.name}, ${formatRatio(ratio)}, and sends less: ${bytes}`
    : `${latency}, ${formatRatio(ratio)} against ${next!.name}, the next best; ${bytes}`;
}

function whyNot(speculative: Candidate, chosen: Candidate, network: string): string {
  const latency = `e2e p50 ${formatRatio(compared(speculative, chosen))} against ${chosen.name}`;
  const bytes = formatChange(speculative.bytes.total, chosen.bytes.total);
  if (speculative.bytes.total >= chosen.bytes.total) return `speculative saves no bytes here (${bytes}); ${latency}`;
  const work = workOf(speculative, chosen);
  const lost = work.length === 0 ? 'little time' : `less time than it loses: ${work.join('; ')}`;
  return `speculative sends less (bytes ${bytes}) but is slower (${latency}): over ${network} the bytes it saves take ${lost}`;
}

/** What `speculative` does more of, as far as it is seen. */
function workOf(speculative: Candidate, chosen: Candidate): string[] {
  const { shuffling, loadImbalance } = speculative;
  const ofTime = formatShare(shuffling);
  const [own, other] = [loadImbalance, chosen.loadImbalance].map((imbalance) => formatNumber(imbalance));
  return [
    ...(shuffling > 0 ? [`predicting and permuting are ${ofTime} of its time`] : []),
    ...(loadImbalance > chosen.loadImbalance && own !== other
      ? [`its busiest rank computes ${own} times the mean rank's expert rows, under ${chosen.name} ${other}`]
      : []),
  ];
}

/** +4.5 % (10 rounds, quartiles +3.1 % and +5.0 %) */
function formatRatio({ median: middle, lowerQuartile, upperQuartile, rounds }: RelativeLatency): string {
  const change = formatChange(middle, 1);
  if (rounds === 1) return `${change} (one round)`;
  return `${change} (${rounds} rounds, quartiles ${formatChange(lowerQuartile, 1)} and ${formatChange(upperQuartile, 1)})`;
}
