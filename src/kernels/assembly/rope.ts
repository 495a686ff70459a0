import { Lanes } from './lanes';

/**
 * cosines, sines: [positions][dimension / 2]. The frequency 1 / theta^(2i / dimension) and the angle
 * position * frequency are rounded to float32, as transformers does; the cosine is taken in double.
 */
export function ropeTables(cosines: usize, sines: usize, positions: i32, dimension: i32, theta: f64): void {
  const half = dimension >> 1;
  for (let i = 0; i < half; i++) {
    const exponent: f32 = <f32>(i * 2) / <f32>dimension;
    const frequency: f32 = <f32>1 / <f32>NativeMath.pow(theta, <f64>exponent);
    for (let position = 0; position < positions; position++) {
      const angle: f32 = <f32>position * frequency;
      const at = (<usize>position * <usize>half + <usize>i) << 2;
      store<f32>(cosines + at, <f32>NativeMath.cos(<f64>angle));
      store<f32>(sines + at, <f32>NativeMath.sin(<f64>angle));
    }
  }
}

/**
 * Rotates x: [rows][stride], a row [heads][dimension], in place: with a, b the halves of a head,
 * a' = a cos - b sin and b' = b cos + a sin. positions: i32 [rows].
 */
export function applyRope(
  x: usize,
  stride: i32,
  positions: usize,
  rows: i32,
  heads: i32,
  dimension: i32,
  cosines: usize,
  sines: usize,
): void {
  const half = dimension >> 1;
  const halfBytes = (<usize>half) << 2;
  for (let row = 0; row < rows; row++) {
    const table = <usize>load<i32>(positions + ((<usize>row) << 2)) * halfBytes;
    let head = x + <usize>row * ((<usize>stride) << 2);
    for (let h = 0; h < heads; h++, head += halfBytes * 2) {
      for (let i = 0; i < half; i += 4) {
        const at = (<usize>i) << 2;
        const left = half - i;
        const a = Lanes.load(head + at, left, 0);
        const b = Lanes.load(head + halfBytes + at, left, 0);
        const cosine = Lanes.load(cosines + table + at, left, 0);
        const sine = Lanes.load(sines + table + at, left, 0);
        Lanes.store(head + at, f32x4.sub(f32x4.mul(a, cosine), f32x4.mul(b, sine)), left);
        Lanes.store(head + halfBytes + at, f32x4.add(f32x4.mul(b, cosine), f32x4.mul(a, sine)), left);
      }
    }
  }
}
