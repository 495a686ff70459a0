import { quantile } from './statistics.ts';

/** How long one schedule takes relative to another, over interleaved rounds. 1 = as long. */
export interface RelativeLatency {
  median: number;
  lowerQuartile: number;
  upperQuartile: number;
  rounds: number;
}

/**
 * Ratios within rounds: what slows a whole round down (a busy machine, a clock that changes) slows both, and cancels. Ratios of
 * medians keep it.
 *
 * @param mine [rounds] milliseconds
 * @param other [rounds] of the same rounds
 */
export function relativeLatency(mine: readonly number[], other: readonly number[]): RelativeLatency {
  const ratios = mine.slice(0, other.length).map((value, round) => value / other[round]!);
  return {
    median: quantile(ratios, 0.5),
    lowerQuartile: quantile(ratios, 0.25),
    upperQuartile: quantile(ratios, 0.75),
    rounds: ratios.length,
  };
}
