import { Exponential } from './exponential';
import { Lanes } from './lanes';

export class Softmax {
  /** x[i] = e^(x[i] - largest), in place; returns their sum in the sixteen-lane order. */
  static exponentiate(x: usize, width: i32): f32 {
    const lowest = f32.NEGATIVE_INFINITY;
    const largest = f32x4.splat(Lanes.maximum(x, width));
    let s0 = f32x4.splat(0),
      s1 = s0,
      s2 = s0,
      s3 = s0;
    for (let left = width; left > 0; left -= 16, x += 64) {
      const e0 = Exponential.of(f32x4.sub(Lanes.load(x, left, lowest), largest));
      const e1 = Exponential.of(f32x4.sub(Lanes.load(x + 16, left - 4, lowest), largest));
      const e2 = Exponential.of(f32x4.sub(Lanes.load(x + 32, left - 8, lowest), largest));
      const e3 = Exponential.of(f32x4.sub(Lanes.load(x + 48, left - 12, lowest), largest));
      Lanes.store(x, e0, left);
      Lanes.store(x + 16, e1, left - 4);
      Lanes.store(x + 32, e2, left - 8);
      Lanes.store(x + 48, e3, left - 12);
      s0 = f32x4.add(s0, e0);
      s1 = f32x4.add(s1, e1);
      s2 = f32x4.add(s2, e2);
      s3 = f32x4.add(s3, e3);
    }
    return Lanes.fold(s0, s1, s2, s3);
  }

  /** The sum that `exponentiate` returns, without writing. */
  static sum(x: usize, width: i32, largest: f32): f32 {
    const lowest = f32.NEGATIVE_INFINITY;
    const shift = f32x4.splat(largest);
    let s0 = f32x4.splat(0),
      s1 = s0,
      s2 = s0,
      s3 = s0;
    for (let left = width; left > 0; left -= 16, x += 64) {
      s0 = f32x4.add(s0, Exponential.of(f32x4.sub(Lanes.load(x, left, lowest), shift)));
      s1 = f32x4.add(s1, Exponential.of(f32x4.sub(Lanes.load(x + 16, left - 4, lowest), shift)));
      s2 = f32x4.add(s2, Exponential.of(f32x4.sub(Lanes.load(x + 32, left - 8, lowest), shift)));
      s3 = f32x4.add(s3, Exponential.of(f32x4.sub(Lanes.load(x + 48, left - 12, lowest), shift)));
    }
    return Lanes.fold(s0, s1, s2, s3);
  }
}

/** x: [rows][stride], in place: x[row][i] = e^(x[row][i] - largest) / sum. */
export function softmaxRows(x: usize, stride: i32, rows: i32, width: i32): void {
  for (let row = 0; row < rows; row++) {
    const at = x + <usize>row * ((<usize>stride) << 2);
    const sum = f32x4.splat(Softmax.exponentiate(at, width));
    for (let i = 0; i < width; i += 4) {
      const value = at + ((<usize>i) << 2);
      Lanes.store(value, f32x4.div(Lanes.load(value, width - i, 0), sum), width - i);
    }
  }
}
