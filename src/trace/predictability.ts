import type { RoutingTrace } from './routing-trace.ts';
import type { RowsByToken } from './statistics.ts';

/** How well the experts of a token follow from its id in one layer. Held-out tokens = tokens of the second half of the requests. */
export interface TokenPredictability {
  /** Of the experts predicted, the share that was routed to; only ids seen in the first half predict. */
  precision: number;
  /** Of the experts routed to, the share that was predicted; an unseen id misses all of its. */
  recall: number;
  /** Harmonic mean of the two. */
  f1: number;
  /** Lower quartile, median and upper quartile over held-out token ids of the share predicted right. */
  quartiles: [number, number, number];
}

/** Rows looked at per layer when transitions are tested; more do not move the figure. */
const mostTestedRows = 8192;
export const longestLookback = 3;

/**
 * Predicts for each token id its k hottest experts of the first half (ties to the lower expert), tests them on the second.
 *
 * @param fit rows of the first half by token id
 * @param test rows of the second half by token id
 */
export function tokenPredictability(
  trace: RoutingTrace,
  layer: number,
  fit: RowsByToken,
  test: RowsByToken,
): TokenPredictability {
  const { layers, topK, experts, vocabularySize } = trace.model;
  const counts = new Int32Array(experts);
  const chosen = new Uint8Array(experts);
  const perId: number[] = [];
  let hits = 0;
  let predicted = 0;
  for (let id = 0; id < vocabularySize; id++) {
    const tested = test.starts[id + 1]! - test.starts[id]!;
    if (tested === 0 || fit.starts[id] === fit.starts[id + 1]) continue;
    counts.fill(0);
    for (let at = fit.starts[id]!; at < fit.starts[id + 1]!; at++) {
      const base = (fit.rows[at]! * layers + layer) * topK;
      for (let i = 0; i < topK; i++) counts[trace.experts[base + i]!]!++;
    }
    markLargest(counts, topK, chosen);
    let hitsOfId = 0;
    for (let at = test.starts[id]!; at < test.starts[id + 1]!; at++) {
      const base = (test.rows[at]! * layers + layer) * topK;
      for (let i = 0; i < topK; i++) hitsOfId += chosen[trace.experts[base + i]!]!;
    }
    perId.push(hitsOfId / (tested * topK));
    hits += hitsOfId;
    predicted += tested * topK;
  }
  const routed = test.rows.length * topK;
  perId.sort((a, b) => a - b);
  return {
    precision: hits / predicted,
    recall: hits / routed,
    f1: (2 * hits) / (predicted + routed),
    quartiles: [quantile(perId, 0.25), quantile(perId, 0.5), quantile(perId, 0.75)],
  };
}

/**
 * How well the experts of a layer follow from those of the layers before: each expert of a layer before votes with the share of its
 * tokens that went to each expert here, and the k with most votes are the prediction. Fitted on rows before `middle`, tested on
 * those from it on. No token ids are needed.
 *
 * @returns [lookback - 1] share of the experts predicted right, for 1 to `longestLookback` layers before; NaN where the trace or
 *   the model has too few
 */
export function transitionAccuracy(trace: RoutingTrace, layer: number, middle: number): number[] {
  const { topK, experts } = trace.model;
  const stride = Math.max(1, Math.ceil((trace.length - middle) / mostTestedRows));
  const tested = Math.ceil(Math.max(0, trace.length - middle) / stride);
  const accuracy: number[] = [];
  // Votes of all layers so far: [tested][N]
  const votes = new Float32Array(tested * experts);
  const chosen = new Uint8Array(experts);
  for (let lookback = 1; lookback <= longestLookback; lookback++) {
    if (layer - lookback < 0 || middle === 0 || tested === 0) {
      accuracy.push(Number.NaN);
      continue;
    }
    addVotes(trace, layer, lookback, middle, stride, votes);
    let hits = 0;
    for (let row = middle, test = 0; row < trace.length; row += stride, test++) {
      markLargest(votes.subarray(test * experts, (test + 1) * experts), topK, chosen);
      const base = (row * trace.model.layers + layer) * topK;
      for (let i = 0; i < topK; i++) hits += chosen[trace.experts[base + i]!]!;
    }
    accuracy.push(hits / (tested * topK));
  }
  return accuracy;
}

/** Adds the votes of the layer `lookback` before. @param votes [tested][N] */
function addVotes(
  trace: RoutingTrace,
  layer: number,
  lookback: number,
  middle: number,
  stride: number,
  votes: Float32Array,
): void {
  const { layers, topK, experts } = trace.model;
  const ids = trace.experts;
  // [N before][N here] tokens that had both
  const together = new Float32Array(experts * experts);
  const seen = new Float32Array(experts);
  for (let row = 0; row < middle; row++) {
    const here = (row * layers + layer) * topK;
    const before = here - lookback * topK;
    for (let i = 0; i < topK; i++) {
      const from = ids[before + i]!;
      seen[from]!++;
      for (let j = 0; j < topK; j++) together[from * experts + ids[here + j]!]!++;
    }
  }
  for (let row = middle, test = 0; row < trace.length; row += stride, test++) {
    const before = (row * layers + layer - lookback) * topK;
    for (let i = 0; i < topK; i++) {
      const from = ids[before + i]!;
      if (seen[from] === 0) continue;
      const weight = 1 / seen[from]!;
      for (let expert = 0; expert < experts; expert++)
        votes[test * experts + expert]! += weight * together[from * experts + expert]!;
    }
  }
}

/** Sets `chosen` to 1 at the `count` largest values, ties to the lower index. */
export function markLargest(values: Int32Array | Float32Array, count: number, chosen: Uint8Array): void {
  chosen.fill(0);
  for (let pick = 0; pick < count; pick++) {
    let best = -1;
    for (let i = 0; i < values.length; i++) {
      if (chosen[i] === 0 && (best < 0 || values[i]! > values[best]!)) best = i;
    }
    chosen[best] = 1;
  }
}

/** Of sorted values, between the two nearest; NaN of none. */
export function quantile(sorted: number[], share: number): number {
  const at = (sorted.length - 1) * share;
  const below = Math.floor(at);
  const low = sorted[below] ?? Number.NaN;
  return low + (at - below) * ((sorted[below + 1] ?? low) - low);
}
