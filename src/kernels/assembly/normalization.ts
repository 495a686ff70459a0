import { Lanes } from './lanes';

/**
 * y[row][i] = weight[i] * (x[row][i] * scale), scale = 1 / sqrt(mean of squares + epsilon), all in
 * float32; the squares are added in the sixteen-lane order. y may be x.
 */
export function rmsNorm(
  x: usize,
  xStride: i32,
  weight: usize,
  y: usize,
  yStride: i32,
  rows: i32,
  width: i32,
  epsilon: f32,
): void {
  for (let row = 0; row < rows; row++) {
    const from = x + <usize>row * ((<usize>xStride) << 2);
    const to = y + <usize>row * ((<usize>yStride) << 2);
    normalizeRow(from, weight, to, width, epsilon);
  }
}

/** The same, where row i of x is at addresses[i]; addresses: i32 [rows], y dense. */
export function rmsNormAt(addresses: usize, weight: usize, y: usize, rows: i32, width: i32, epsilon: f32): void {
  const bytes = (<usize>width) << 2;
  for (let row = 0; row < rows; row++, addresses += 4, y += bytes) {
    normalizeRow(<usize>load<u32>(addresses), weight, y, width, epsilon);
  }
}

function normalizeRow(from: usize, weight: usize, to: usize, width: i32, epsilon: f32): void {
  const mean = sumOfSquares(from, width) / <f32>width;
  const scale = f32x4.splat(<f32>1 / sqrt<f32>(mean + epsilon));
  for (let i = 0; i < width; i += 4) {
    const at = (<usize>i) << 2;
    const scaled = f32x4.mul(Lanes.load(from + at, width - i, 0), scale);
    Lanes.store(to + at, f32x4.mul(Lanes.load(weight + at, width - i, 0), scaled), width - i);
  }
}

function sumOfSquares(x: usize, width: i32): f32 {
  let s0 = f32x4.splat(0),
    s1 = s0,
    s2 = s0,
    s3 = s0;
  for (let left = width; left > 0; left -= 16, x += 64) {
    const v0 = Lanes.load(x, left, 0);
    const v1 = Lanes.load(x + 16, left - 4, 0);
    const v2 = Lanes.load(x + 32, left - 8, 0);
    const v3 = Lanes.load(x + 48, left - 12, 0);
    s0 = Lanes.multiplyAdd(s0, v0, v0);
    s1 = Lanes.multiplyAdd(s1, v1, v1);
    s2 = Lanes.multiplyAdd(s2, v2, v2);
    s3 = Lanes.multiplyAdd(s3, v3, v3);
  }
  return Lanes.fold(s0, s1, s2, s3);
}
