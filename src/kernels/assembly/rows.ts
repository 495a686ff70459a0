/** Moving and adding whole rows; index: i32 [rows], all rows [width] and dense. */
import { Lanes } from './lanes';

/** target[i] = source[index[i]]. */
export function gatherRows(source: usize, index: usize, target: usize, rows: i32, width: i32): void {
  const bytes = (<usize>width) << 2;
  for (let i = 0; i < rows; i++, index += 4, target += bytes) {
    memory.copy(target, source + <usize>load<i32>(index) * bytes, bytes);
  }
}

/** target[i] = the row at addresses[i]; addresses: i32 [rows]. */
export function gatherAt(addresses: usize, target: usize, rows: i32, width: i32): void {
  const bytes = (<usize>width) << 2;
  for (let i = 0; i < rows; i++, addresses += 4, target += bytes) {
    memory.copy(target, <usize>load<u32>(addresses), bytes);
  }
}

/** target[index[i]] = source[i]. */
export function scatterRows(source: usize, index: usize, target: usize, rows: i32, width: i32): void {
  const bytes = (<usize>width) << 2;
  for (let i = 0; i < rows; i++, index += 4, source += bytes) {
    memory.copy(target + <usize>load<i32>(index) * bytes, source, bytes);
  }
}

/** target[index[i]] += source[i], i ascending. */
export function scatterAddRows(source: usize, index: usize, target: usize, rows: i32, width: i32): void {
  const bytes = (<usize>width) << 2;
  for (let i = 0; i < rows; i++, index += 4, source += bytes) {
    const to = target + <usize>load<i32>(index) * bytes;
    addTo(to, source, to, width);
  }
}

/** target[index[i]] += weights[i] * source[i], multiplied and rounded first, i ascending. */
export function scatterAddWeighted(
  source: usize,
  index: usize,
  weights: usize,
  target: usize,
  rows: i32,
  width: i32,
): void {
  const bytes = (<usize>width) << 2;
  for (let i = 0; i < rows; i++, index += 4, weights += 4, source += bytes) {
    const weight = v128.load32_splat(weights);
    const to = target + <usize>load<i32>(index) * bytes;
    for (let column = 0; column < width; column += 4) {
      const at = (<usize>column) << 2;
      const left = width - column;
      const sum = Lanes.multiplyAdd(Lanes.load(to + at, left, 0), weight, Lanes.load(source + at, left, 0));
      Lanes.store(to + at, sum, left);
    }
  }
}

/** target[i] = a[i] + b[i]; target may be a or b. */
export function addTo(a: usize, b: usize, target: usize, count: i32): void {
  for (let left = count; left > 0; left -= 4, a += 16, b += 16, target += 16) {
    Lanes.store(target, f32x4.add(Lanes.load(a, left, 0), Lanes.load(b, left, 0)), left);
  }
}

export function copy(source: usize, target: usize, bytes: usize): void {
  memory.copy(target, source, bytes);
}

export function fillZero(target: usize, bytes: usize): void {
  memory.fill(target, 0, bytes);
}

/** Lowest index of the largest element; NaN is passed over, -1 when there is nothing else. */
export function argmaxRow(x: usize, count: i32): i32 {
  const largest = Lanes.maximum(x, count);
  for (let i = 0; i < count; i++) {
    if (load<f32>(x + ((<usize>i) << 2)) == largest) return i;
  }
  return -1;
}

/** Reads `bytes` (rounded down to 128) and returns a checksum: the time is what memory takes to stream. */
export function streamSum(pointer: usize, bytes: usize): i32 {
  const end = pointer + (bytes & ~127);
  let s0 = i32x4.splat(0),
    s1 = s0,
    s2 = s0,
    s3 = s0;
  for (; pointer < end; pointer += 128) {
    s0 = i32x4.add(s0, v128.load(pointer));
    s1 = i32x4.add(s1, v128.load(pointer, 16));
    s2 = i32x4.add(s2, v128.load(pointer, 32));
    s3 = i32x4.add(s3, v128.load(pointer, 48));
    s0 = i32x4.add(s0, v128.load(pointer, 64));
    s1 = i32x4.add(s1, v128.load(pointer, 80));
    s2 = i32x4.add(s2, v128.load(pointer, 96));
    s3 = i32x4.add(s3, v128.load(pointer, 112));
  }
  const t = i32x4.add(i32x4.add(s0, s1), i32x4.add(s2, s3));
  return i32x4.extract_lane(t, 0) + i32x4.extract_lane(t, 1) + i32x4.extract_lane(t, 2) + i32x4.extract_lane(t, 3);
}
