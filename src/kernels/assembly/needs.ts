/**
 * logits: [rows][experts] of a router run ahead of time -> needs: u8 [rows][devices], 255 = certainly needed.
 *
 * Expert e is chosen with probability p_e, which rises from 0 to 1 as a smooth cubic over `doubt` mean absolute deviations of the row's
 * logits on either side of the choice's boundary (midway between the k-th and the (k+1)-th largest); a device is needed with
 * probability 1 - prod over its experts of (1 - p_e). owners: u16 [experts] device of each; scratch: f32 [k + 1 + devices].
 */
export function routerNeeds(
  logits: usize,
  rows: i32,
  experts: i32,
  k: i32,
  doubt: f32,
  owners: usize,
  devices: i32,
  scratch: usize,
  needs: usize,
): void {
  const spared = scratch + ((<usize>(k + 1)) << 2);
  for (let row = 0; row < rows; row++) {
    const boundary = choiceBoundary(logits, experts, k, scratch);
    const width = doubt * meanDeviation(logits, experts);
    for (let device = 0; device < devices; device++) store<f32>(spared + ((<usize>device) << 2), 1);
    for (let expert = 0; expert < experts; expert++) {
      const above = load<f32>(logits + ((<usize>expert) << 2)) - boundary;
      if (above <= -width && above < 0) continue;
      const at = spared + ((<usize>load<u16>(owners + ((<usize>expert) << 1))) << 2);
      if (above >= width) store<f32>(at, 0);
      else {
        const x = above / width;
        store<f32>(at, load<f32>(at) * (<f32>0.5 - x * (<f32>0.75 - <f32>0.25 * x * x)));
      }
    }
    for (let device = 0; device < devices; device++, needs++) {
      const need = (<f32>1 - load<f32>(spared + ((<usize>device) << 2))) * <f32>255;
      // NaN, from logits that are none, counts as not needed.
      store<u8>(needs, need > 0 ? <u8>nearest<f32>(need) : 0);
    }
    logits += (<usize>experts) << 2;
  }
}

/** Midway between the k-th and the (k+1)-th largest logit. @param largest f32 [k + 1] scratch */
function choiceBoundary(logits: usize, experts: i32, k: i32, largest: usize): f32 {
  const last = (<usize>k) << 2;
  for (let at: usize = 0; at <= last; at += 4) store<f32>(largest + at, -Infinity);
  for (let expert = 0; expert < experts; expert++) {
    const logit = load<f32>(logits + ((<usize>expert) << 2));
    if (!(logit > load<f32>(largest + last))) continue;
    let at = last;
    for (; at > 0 && logit > load<f32>(largest + at - 4); at -= 4) {
      store<f32>(largest + at, load<f32>(largest + at - 4));
    }
    store<f32>(largest + at, logit);
  }
  const kth = load<f32>(largest + last - 4);
  return experts > k ? (kth + load<f32>(largest + last)) * <f32>0.5 : kth;
}

/** Mean absolute deviation, added in ascending order. */
function meanDeviation(logits: usize, experts: i32): f32 {
  let sum: f32 = 0;
  for (let expert = 0; expert < experts; expert++) sum += load<f32>(logits + ((<usize>expert) << 2));
  const mean = sum / <f32>experts;
  let deviation: f32 = 0;
  for (let expert = 0; expert < experts; expert++) {
    deviation += abs<f32>(load<f32>(logits + ((<usize>expert) << 2)) - mean);
  }
  return deviation / <f32>experts;
}
