import { Exponential } from './exponential';
import { Lanes } from './lanes';

/** gateUp: [rows][stride], a row [gate(width) | up(width)] -> y[row][i] = silu(gate[i]) * up[i], silu(g) = g / (1 + e^-g). */
export function swiglu(gateUp: usize, stride: i32, y: usize, yStride: i32, rows: i32, width: i32): void {
  const one = f32x4.splat(1);
  for (let row = 0; row < rows; row++) {
    let gate = gateUp + <usize>row * ((<usize>stride) << 2);
    let up = gate + ((<usize>width) << 2);
    let to = y + <usize>row * ((<usize>yStride) << 2);
    for (let i = 0; i < width; i += 4) {
      const g = Lanes.load(gate, width - i, 0);
      const silu = f32x4.div(g, f32x4.add(one, Exponential.of(f32x4.neg(g))));
      Lanes.store(to, f32x4.mul(silu, Lanes.load(up, width - i, 0)), width - i);
      gate += 16;
      up += 16;
      to += 16;
    }
  }
}
