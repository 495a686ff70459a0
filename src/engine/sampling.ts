import type { SamplingOptions } from './api.ts';

/** Uniform number in [0, 1) for the `index`-th token of a request: a hash, so that order of execution does not matter. */
export function uniform(seed: number, index: number): number {
  let state = (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35)) >>> 0;
  for (let round = 0; round < 3; round++) {
    state = Math.imul(state ^ (state >>> 16), 0x7feb352d);
    state = Math.imul(state ^ (state >>> 15), 0x846ca68b);
    state = (state ^ (state >>> 16)) >>> 0;
  }
  return state / 2 ** 32;
}

/**
 * Draws a token from `probabilities` (softmax of logits / temperature; left unchanged): the most probable `topK` ids (0 = all),
 * of those the fewest whose mass reaches `topP`. Ties go to the lower id.
 *
 * @param random in [0, 1)
 */
export function drawToken(probabilities: Float32Array, options: SamplingOptions, random: number): number {
  const order = Int32Array.from({ length: probabilities.length }, (_, id) => id);
  order.sort((a, b) => probabilities[b]! - probabilities[a]! || a - b);
  const most = options.topK > 0 ? Math.min(options.topK, order.length) : order.length;
  let mass = 0;
  let kept = 0;
  while (kept < most && (kept === 0 || mass < options.topP)) mass += probabilities[order[kept++]!]!;
  let left = random * mass;
  for (let i = 0; i < kept; i++) {
    left -= probabilities[order[i]!]!;
    if (left < 0) return order[i]!;
  }
  return order[kept - 1]!;
}
