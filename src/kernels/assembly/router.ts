import { Exponential } from './exponential';
import { Lanes } from './lanes';
import { Softmax } from './softmax';

/**
 * logits: [rows][stride] over `experts` -> ids: i32 [rows][k], weights: f32 [rows][k].
 *
 * The k largest logits, ties to the lower id; weights are their probabilities in a softmax over all
 * experts (sum in the sixteen-lane order), divided by their own sum, added in ascending id, when
 * `normalize`. Each row comes out in ascending expert id.
 */
export function routerTopK(
  logits: usize,
  stride: i32,
  rows: i32,
  experts: i32,
  k: i32,
  normalize: bool,
  ids: usize,
  weights: usize,
): void {
  const rowBytes = (<usize>k) << 2;
  for (let row = 0; row < rows; row++) {
    const from = logits + <usize>row * ((<usize>stride) << 2);
    choose(from, experts, k, ids, weights);
    sortById(k, ids, weights);
    const largest = Lanes.maximum(from, experts);
    const sum = Softmax.sum(from, experts, largest);
    let chosen: f32 = 0;
    for (let i: usize = 0; i < rowBytes; i += 4) {
      const e = Exponential.of(f32x4.splat(load<f32>(weights + i) - largest));
      const probability = f32x4.extract_lane(e, 0) / sum;
      store<f32>(weights + i, probability);
      chosen += probability;
    }
    if (normalize) {
      for (let i: usize = 0; i < rowBytes; i += 4) store<f32>(weights + i, load<f32>(weights + i) / chosen);
    }
    ids += rowBytes;
    weights += rowBytes;
  }
}

/** The k largest logits and their ids, in falling order; an equal logit goes behind those of lower id. */
function choose(logits: usize, experts: i32, k: i32, ids: usize, best: usize): void {
  let filled = 0;
  for (let expert = 0; expert < experts; expert++) {
    const logit = load<f32>(logits + ((<usize>expert) << 2));
    let at = filled;
    if (filled < k) filled++;
    else if (logit > load<f32>(best + ((<usize>(k - 1)) << 2))) at = k - 1;
    else continue;
    while (at > 0 && logit > load<f32>(best + ((<usize>(at - 1)) << 2))) {
      move(ids, best, at - 1, at);
      at--;
    }
    store<i32>(ids + ((<usize>at) << 2), expert);
    store<f32>(best + ((<usize>at) << 2), logit);
  }
}

function sortById(k: i32, ids: usize, values: usize): void {
  for (let next = 1; next < k; next++) {
    const id = load<i32>(ids + ((<usize>next) << 2));
    const value = load<f32>(values + ((<usize>next) << 2));
    let at = next;
    while (at > 0 && load<i32>(ids + ((<usize>(at - 1)) << 2)) > id) {
      move(ids, values, at - 1, at);
      at--;
    }
    store<i32>(ids + ((<usize>at) << 2), id);
    store<f32>(values + ((<usize>at) << 2), value);
  }
}

function move(ids: usize, values: usize, from: i32, to: i32): void {
  store<i32>(ids + ((<usize>to) << 2), load<i32>(ids + ((<usize>from) << 2)));
  store<f32>(values + ((<usize>to) << 2), load<f32>(values + ((<usize>from) << 2)));
}
