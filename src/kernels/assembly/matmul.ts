/**
 * Matrix products. Every output element is one chain over k, ascending, from +0: multiply, round,
 * add, round. Tiles only choose which chains run side by side, so an output's bits depend on
 * its row of x and its row of the weight, and on nothing else.
 */
import { Lanes } from './lanes';
import { Panel } from './panel';

/**
 * Tiles over a panel: `x..` point to rows of x, `w` into a panel, `y..` to where the rows of y go, `columns` is how
 * many of them may be written, `mask` is `Panel.highMask`.
 */
export class Tile {
  /** 4 rows by 8 columns, w at column 0 or 8 of a panel. */
  static fourByEight<T>(
    x0: usize,
    x1: usize,
    x2: usize,
    x3: usize,
    w: usize,
    inputs: i32,
    mask: v128,
    y0: usize,
    y1: usize,
    y2: usize,
    y3: usize,
    columns: i32,
  ): void {
    const rowBytes: usize = 16 * sizeof<T>();
    let a0 = f32x4.splat(0),
      a1 = a0,
      b0 = a0,
      b1 = a0,
      c0 = a0,
      c1 = a0,
      d0 = a0,
      d1 = a0;
    for (let k = 0; k < inputs; k++) {
      const raw = v128.load(w);
      const low = Panel.low<T>(raw);
      const high = sizeof<T>() == 2 ? v128.and(raw, mask) : v128.load(w, 16);
      const xa = v128.load32_splat(x0);
      a0 = Lanes.multiplyAdd(a0, xa, low);
      a1 = Lanes.multiplyAdd(a1, xa, high);
      const xb = v128.load32_splat(x1);
      b0 = Lanes.multiplyAdd(b0, xb, low);
      b1 = Lanes.multiplyAdd(b1, xb, high);
      const xc = v128.load32_splat(x2);
      c0 = Lanes.multiplyAdd(c0, xc, low);
      c1 = Lanes.multiplyAdd(c1, xc, high);
      const xd = v128.load32_splat(x3);
      d0 = Lanes.multiplyAdd(d0, xd, low);
      d1 = Lanes.multiplyAdd(d1, xd, high);
      x0 += 4;
      x1 += 4;
      x2 += 4;
      x3 += 4;
      w += rowBytes;
    }
    Lanes.store(y0, a0, columns);
    Lanes.store(y1, b0, columns);
    Lanes.store(y2, c0, columns);
    Lanes.store(y3, d0, columns);
    Lanes.store(y0 + 16, a1, columns - 4);
    Lanes.store(y1 + 16, b1, columns - 4);
    Lanes.store(y2 + 16, c1, columns - 4);
    Lanes.store(y3 + 16, d1, columns - 4);
  }

  /** 2 rows by a whole panel. */
  static twoBySixteen<T>(
    x0: usize,
    x1: usize,
    w: usize,
    inputs: i32,
    mask: v128,
    y0: usize,
    y1: usize,
    columns: i32,
  ): void {
    const rowBytes: usize = 16 * sizeof<T>();
    let a0 = f32x4.splat(0),
      a1 = a0,
      a2 = a0,
      a3 = a0,
      b0 = a0,
      b1 = a0,
      b2 = a0,
      b3 = a0;
    for (let k = 0; k < inputs; k++) {
      const xa = v128.load32_splat(x0);
      const xb = v128.load32_splat(x1);
      let raw = v128.load(w);
      let low = Panel.low<T>(raw);
      let high = sizeof<T>() == 2 ? v128.and(raw, mask) : v128.load(w, 16);
      a0 = Lanes.multiplyAdd(a0, xa, low);
      b0 = Lanes.multiplyAdd(b0, xb, low);
      a1 = Lanes.multiplyAdd(a1, xa, high);
      b1 = Lanes.multiplyAdd(b1, xb, high);
      raw = v128.load(w, 8 * sizeof<T>());
      low = Panel.low<T>(raw);
      high = sizeof<T>() == 2 ? v128.and(raw, mask) : v128.load(w, 48);
      a2 = Lanes.multiplyAdd(a2, xa, low);
      b2 = Lanes.multiplyAdd(b2, xb, low);
      a3 = Lanes.multiplyAdd(a3, xa, high);
      b3 = Lanes.multiplyAdd(b3, xb, high);
      x0 += 4;
      x1 += 4;
      w += rowBytes;
    }
    Tile.storeSixteen(y0, a0, a1, a2, a3, columns);
    Tile.storeSixteen(y1, b0, b1, b2, b3, columns);
  }

  /**
   * 1 row by two bfloat16 panels, `w` and `v`; `columns` counts those of both. With float32 V8 runs out of
   * registers here, and two runs of `oneBySixteen` are faster.
   */
  static oneByThirtyTwo(x: usize, w: usize, v: usize, inputs: i32, mask: v128, y: usize, columns: i32): void {
    let a0 = f32x4.splat(0),
      a1 = a0,
      a2 = a0,
      a3 = a0,
      b0 = a0,
      b1 = a0,
      b2 = a0,
      b3 = a0;
    for (let k = 0; k < inputs; k++) {
      const value = v128.load32_splat(x);
      let raw = v128.load(w);
      a0 = Lanes.multiplyAdd(a0, value, Panel.low<u16>(raw));
      a1 = Lanes.multiplyAdd(a1, value, v128.and(raw, mask));
      raw = v128.load(w, 16);
      a2 = Lanes.multiplyAdd(a2, value, Panel.low<u16>(raw));
      a3 = Lanes.multiplyAdd(a3, value, v128.and(raw, mask));
      raw = v128.load(v);
      b0 = Lanes.multiplyAdd(b0, value, Panel.low<u16>(raw));
      b1 = Lanes.multiplyAdd(b1, value, v128.and(raw, mask));
      raw = v128.load(v, 16);
      b2 = Lanes.multiplyAdd(b2, value, Panel.low<u16>(raw));
      b3 = Lanes.multiplyAdd(b3, value, v128.and(raw, mask));
      x += 4;
      w += 32;
      v += 32;
    }
    Tile.storeSixteen(y, a0, a1, a2, a3, columns);
    Tile.storeSixteen(y + 64, b0, b1, b2, b3, columns - 16);
  }

  /** 1 row by a whole panel. */
  static oneBySixteen<T>(x: usize, w: usize, inputs: i32, mask: v128, y: usize, columns: i32): void {
    const rowBytes: usize = 16 * sizeof<T>();
    let a0 = f32x4.splat(0),
      a1 = a0,
      a2 = a0,
      a3 = a0;
    for (let k = 0; k < inputs; k++) {
      const value = v128.load32_splat(x);
      let raw = v128.load(w);
      a0 = Lanes.multiplyAdd(a0, value, Panel.low<T>(raw));
      a1 = Lanes.multiplyAdd(a1, value, sizeof<T>() == 2 ? v128.and(raw, mask) : v128.load(w, 16));
      raw = v128.load(w, 8 * sizeof<T>());
      a2 = Lanes.multiplyAdd(a2, value, Panel.low<T>(raw));
      a3 = Lanes.multiplyAdd(a3, value, sizeof<T>() == 2 ? v128.and(raw, mask) : v128.load(w, 48));
      x += 4;
      w += rowBytes;
    }
    Tile.storeSixteen(y, a0, a1, a2, a3, columns);
  }

  @inline
  static storeSixteen(y: usize, v0: v128, v1: v128, v2: v128, v3: v128, columns: i32): void {
    Lanes.store(y, v0, columns);
    Lanes.store(y + 16, v1, columns - 4);
    Lanes.store(y + 32, v2, columns - 8);
    Lanes.store(y + 48, v3, columns - 12);
  }
}

/** y[m][n] = sum over k of x[m][k] * W[n][k] for the n of panels panelStart..panelEnd - 1. */
function matmul<T>(
  x: usize,
  xStride: i32,
  rows: i32,
  packed: usize,
  outputs: i32,
  inputs: i32,
  y: usize,
  yStride: i32,
  panelStart: i32,
  panelEnd: i32,
): void {
  const xBytes = (<usize>xStride) << 2;
  const yBytes = (<usize>yStride) << 2;
  const panelBytes = ((<usize>inputs) << 4) * sizeof<T>();
  const halfBytes: usize = 8 * sizeof<T>();
  const mask = Panel.highMask(inputs);
  // Two panels at a time: their weights stay in the first-level cache for all rows.
  for (let panel = panelStart; panel < panelEnd; panel += 2) {
    const columns = min(min(panelEnd - panel, 2) << 4, outputs - (panel << 4));
    const w = packed + <usize>panel * panelBytes;
    const v = w + panelBytes;
    let from = x;
    let to = y + ((<usize>panel) << 6);
    let left = rows;
    for (; left >= 4; left -= 4) {
      for (let column = 0; column < columns; column += 8) {
        const half = w + <usize>(column >> 4) * panelBytes + <usize>((column >> 3) & 1) * halfBytes;
        const at = to + ((<usize>column) << 2);
        Tile.fourByEight<T>(
          from,
          from + xBytes,
          from + 2 * xBytes,
          from + 3 * xBytes,
          half,
          inputs,
          mask,
          at,
          at + yBytes,
          at + 2 * yBytes,
          at + 3 * yBytes,
          columns - column,
        );
      }
      from += 4 * xBytes;
      to += 4 * yBytes;
    }
    if (left >= 2) {
      Tile.twoBySixteen<T>(from, from + xBytes, w, inputs, mask, to, to + yBytes, columns);
      if (columns > 16)
        Tile.twoBySixteen<T>(from, from + xBytes, v, inputs, mask, to + 64, to + yBytes + 64, columns - 16);
      from += 2 * xBytes;
      to += 2 * yBytes;
      left -= 2;
    }
    if (left == 1) {
      if (sizeof<T>() == 2 && columns > 16) {
        Tile.oneByThirtyTwo(from, w, v, inputs, mask, to, columns);
      } else {
        Tile.oneBySixteen<T>(from, w, inputs, mask, to, columns);
        if (columns > 16) Tile.oneBySixteen<T>(from, v, inputs, mask, to + 64, columns - 16);
      }
    }
  }
}

export function matmulBf16(
  x: usize,
  xStride: i32,
  rows: i32,
  packed: usize,
  outputs: i32,
  inputs: i32,
  y: usize,
  yStride: i32,
  panelStart: i32,
  panelEnd: i32,
): void {
  matmul<u16>(x, xStride, rows, packed, outputs, inputs, y, yStride, panelStart, panelEnd);
}

export function matmulF32(
  x: usize,
  xStride: i32,
  rows: i32,
  packed: usize,
  outputs: i32,
  inputs: i32,
  y: usize,
  yStride: i32,
  panelStart: i32,
  panelEnd: i32,
): void {
  matmul<f32>(x, xStride, rows, packed, outputs, inputs, y, yStride, panelStart, panelEnd);
}
