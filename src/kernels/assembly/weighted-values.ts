/**
 * The second half of attention: values added up under the softmax numerators p, then divided by their sum. `base` is
 * the position of p[0]; positions first..last take part, one chain per output element, ascending.
 */
import { Page } from './cache';
import { Lanes } from './lanes';

/** For rows r of 2 and columns c of 16: o_r[c] = (sum over positions of p_r[position - base] * value[position][c]) / sum_r. */
export function weighTwo(
  p0: usize,
  p1: usize,
  base: i32,
  first: i32,
  last: i32,
  valuePool: usize,
  pageTable: usize,
  kvHeads: i32,
  kvHead: i32,
  headDim: i32,
  columnBytes: usize,
  sum0: f32,
  sum1: f32,
  o0: usize,
  o1: usize,
): void {
  const headBytes = (<usize>headDim) << 2;
  let a0 = f32x4.splat(0),
    a1 = a0,
    a2 = a0,
    a3 = a0,
    b0 = a0,
    b1 = a0,
    b2 = a0,
    b3 = a0;
  let at = (<usize>(first - base)) << 2;
  for (let position = first; position <= last;) {
    const page = Page.address(valuePool, pageTable, position >> 4, kvHeads, kvHead, headDim);
    let value = page + <usize>(position & 15) * headBytes + columnBytes;
    const end = min(position | 15, last);
    for (; position <= end; position++) {
      const weightA = v128.load32_splat(p0 + at);
      const weightB = v128.load32_splat(p1 + at);
      const v0 = v128.load(value);
      a0 = Lanes.multiplyAdd(a0, weightA, v0);
      b0 = Lanes.multiplyAdd(b0, weightB, v0);
      const v1 = v128.load(value, 16);
      a1 = Lanes.multiplyAdd(a1, weightA, v1);
      b1 = Lanes.multiplyAdd(b1, weightB, v1);
      const v2 = v128.load(value, 32);
      a2 = Lanes.multiplyAdd(a2, weightA, v2);
      b2 = Lanes.multiplyAdd(b2, weightB, v2);
      const v3 = v128.load(value, 48);
      a3 = Lanes.multiplyAdd(a3, weightA, v3);
      b3 = Lanes.multiplyAdd(b3, weightB, v3);
      at += 4;
      value += headBytes;
    }
  }
  storeQuotients(o0, a0, a1, sum0);
  storeQuotients(o0 + 32, a2, a3, sum0);
  storeQuotients(o1, b0, b1, sum1);
  storeQuotients(o1 + 32, b2, b3, sum1);
}

/** `weighTwo` for 4 rows and 8 columns. */
export function weighFour(
  p0: usize,
  p1: usize,
  p2: usize,
  p3: usize,
  base: i32,
  first: i32,
  last: i32,
  valuePool: usize,
  pageTable: usize,
  kvHeads: i32,
  kvHead: i32,
  headDim: i32,
  columnBytes: usize,
  sum0: f32,
  sum1: f32,
  sum2: f32,
  sum3: f32,
  o0: usize,
  o1: usize,
  o2: usize,
  o3: usize,
): void {
  const headBytes = (<usize>headDim) << 2;
  let a0 = f32x4.splat(0),
    a1 = a0,
    b0 = a0,
    b1 = a0,
    c0 = a0,
    c1 = a0,
    d0 = a0,
    d1 = a0;
  let at = (<usize>(first - base)) << 2;
  for (let position = first; position <= last;) {
    const page = Page.address(valuePool, pageTable, position >> 4, kvHeads, kvHead, headDim);
    let value = page + <usize>(position & 15) * headBytes + columnBytes;
    const end = min(position | 15, last);
    for (; position <= end; position++) {
      const v0 = v128.load(value);
      const v1 = v128.load(value, 16);
      const weightA = v128.load32_splat(p0 + at);
      a0 = Lanes.multiplyAdd(a0, weightA, v0);
      a1 = Lanes.multiplyAdd(a1, weightA, v1);
      const weightB = v128.load32_splat(p1 + at);
      b0 = Lanes.multiplyAdd(b0, weightB, v0);
      b1 = Lanes.multiplyAdd(b1, weightB, v1);
      const weightC = v128.load32_splat(p2 + at);
      c0 = Lanes.multiplyAdd(c0, weightC, v0);
      c1 = Lanes.multiplyAdd(c1, weightC, v1);
      const weightD = v128.load32_splat(p3 + at);
      d0 = Lanes.multiplyAdd(d0, weightD, v0);
      d1 = Lanes.multiplyAdd(d1, weightD, v1);
      at += 4;
      value += headBytes;
    }
  }
  storeQuotients(o0, a0, a1, sum0);
  storeQuotients(o1, b0, b1, sum1);
  storeQuotients(o2, c0, c1, sum2);
  storeQuotients(o3, d0, d1, sum3);
}

function storeQuotients(output: usize, v0: v128, v1: v128, sum: f32): void {
  const divisor = f32x4.splat(sum);
  v128.store(output, f32x4.div(v0, divisor));
  v128.store(output, f32x4.div(v1, divisor), 16);
}
