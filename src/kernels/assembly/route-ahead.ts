/**
 * logits: [rows][experts] of a router run ahead of time -> benefits: u8 [rows][homes], what living on each rank saves: the expected
 * number of ranks that then need not be sent to, times `scale`, at most 255.
 *
 * Expert e is chosen with probability p_e, which rises from 0 to 1 as a smooth cubic over `doubt` mean absolute deviations of the row's
 * logits on either side of the choice's boundary (midway between the k-th and the (k+1)-th largest). Rank d, of `ranks`, is saved
 * by home h when some expert of d is chosen but none that h does not hold: prod over d's experts that h lacks of (1 - p_e),
 * minus prod over all of d's experts of (1 - p_e).
 *
 * owners: u16 [experts] rank that owns each; held: u8 [homes][experts], 1 = the home owns or copies it; scratch:
 * f32 [k + 1 + ranks * (homes + 1)].
 */
export function routeAhead(
  logits: usize,
  rows: i32,
  experts: i32,
  k: i32,
  doubt: f32,
  owners: usize,
  ranks: i32,
  held: usize,
  homes: i32,
  scale: f32,
  scratch: usize,
  benefits: usize,
): void {
  // [ranks][homes + 1] products; the last of each over all of the rank's experts.
  const products = scratch + ((<usize>(k + 1)) << 2);
  const stride = (<usize>(homes + 1)) << 2;
  for (let row = 0; row < rows; row++) {
    const boundary = choiceBoundary(logits, experts, k, scratch);
    const width = doubt * meanDeviation(logits, experts);
    const end = products + <usize>ranks * stride;
    for (let at = products; at < end; at += 4) store<f32>(at, 1);
    for (let expert = 0; expert < experts; expert++) {
      const above = load<f32>(logits + ((<usize>expert) << 2)) - boundary;
      if (above <= -width && above < 0) continue;
      const x = above / width;
      const spared = above >= width ? <f32>0 : <f32>0.5 - x * (<f32>0.75 - <f32>0.25 * x * x);
      let at = products + <usize>load<u16>(owners + ((<usize>expert) << 1)) * stride;
      for (let home = 0; home < homes; home++, at += 4) {
        if (load<u8>(held + <usize>home * experts + expert) == 0) store<f32>(at, load<f32>(at) * spared);
      }
      store<f32>(at, load<f32>(at) * spared);
    }
    for (let home = 0; home < homes; home++, benefits++) {
      let saved: f32 = 0;
      for (let rank = products; rank < end; rank += stride) {
        saved += load<f32>(rank + ((<usize>home) << 2)) - load<f32>(rank + stride - 4);
      }
      // NaN, from logits that are none, counts as no benefit.
      const benefit = min<f32>(saved * scale, 255);
      store<u8>(benefits, benefit > 0 ? <u8>nearest<f32>(benefit) : 0);
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
