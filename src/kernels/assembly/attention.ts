/**
 * Causal attention over the paged cache. Scores are chains over headDim, the softmax sums run in the
 * sixteen-lane order by absolute position, and an output element is one chain over positions, ascending,
 * divided by the sum last. Positions a row must not see weigh +0, which changes no bit of a
 * chain that starts at +0; so neither the chunk a row came in nor its neighbours show in its result.
 */
import { Page } from './cache';
import { Tile } from './matmul';
import { Panel } from './panel';
import { Softmax } from './softmax';
import { weighFour, weighTwo } from './weighted-values';

/**
 * query, output: [rows][stride], a row [heads][headDim]; row r is position firstPosition + r and
 * sees positions max(0, p - window + 1)..p, or 0..p when window is 0. heads % kvHeads == 0 and
 * headDim % 16 == 0. scratch: 4 rows of as many floats as the pages seen have positions.
 */
export function attention(
  query: usize,
  queryStride: i32,
  rows: i32,
  firstPosition: i32,
  heads: i32,
  kvHeads: i32,
  headDim: i32,
  scale: f32,
  window: i32,
  keyPool: usize,
  valuePool: usize,
  pageTable: usize,
  output: usize,
  outputStride: i32,
  scratch: usize,
): void {
  const group = heads / kvHeads;
  const queries = rows * group;
  const queryBytes = (<usize>queryStride) << 2;
  const outputBytes = (<usize>outputStride) << 2;
  const headBytes = (<usize>headDim) << 2;
  const mask = Panel.highMask(headDim);
  for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
    const headOffset = <usize>(kvHead * group) * headBytes;
    // Blocks of 4 (row, head of the group) pairs share each page; a short block repeats its last pair.
    for (let i = 0; i < queries; i += 4) {
      const count = min(queries - i, 4);
      const j1 = min(i + 1, i + count - 1);
      const j2 = min(i + 2, i + count - 1);
      const j3 = i + count - 1;
      const r0 = i / group,
        r1 = j1 / group,
        r2 = j2 / group,
        r3 = j3 / group;
      const h0 = headOffset + <usize>(i - r0 * group) * headBytes;
      const h1 = headOffset + <usize>(j1 - r1 * group) * headBytes;
      const h2 = headOffset + <usize>(j2 - r2 * group) * headBytes;
      const h3 = headOffset + <usize>(j3 - r3 * group) * headBytes;

      const first = firstSeen(firstPosition + r0, window);
      const last = firstPosition + r3;
      const base = first & ~15;
      const width = (((last >> 4) + 1) << 4) - base;
      const rowBytes = (<usize>width) << 2;
      const s1 = scratch + <usize>(j1 - i) * rowBytes;
      const s2 = scratch + <usize>(j2 - i) * rowBytes;
      const s3 = scratch + <usize>(j3 - i) * rowBytes;

      // 1. Scores of whole pages.
      const q0 = query + <usize>r0 * queryBytes + h0;
      const q1 = query + <usize>r1 * queryBytes + h1;
      const q2 = query + <usize>r2 * queryBytes + h2;
      const q3 = query + <usize>r3 * queryBytes + h3;
      for (let position = base; position <= last; position += 16) {
        const keys = Page.address(keyPool, pageTable, position >> 4, kvHeads, kvHead, headDim);
        const at = (<usize>(position - base)) << 2;
        if (count <= 2) {
          Tile.twoBySixteen<f32>(q0, q1, keys, headDim, mask, scratch + at, s1 + at, 16);
        } else {
          Tile.fourByEight<f32>(q0, q1, q2, q3, keys, headDim, mask, scratch + at, s1 + at, s2 + at, s3 + at, 8);
          const next = at + 32;
          Tile.fourByEight<f32>(
            q0,
            q1,
            q2,
            q3,
            keys + 32,
            headDim,
            mask,
            scratch + next,
            s1 + next,
            s2 + next,
            s3 + next,
            8,
          );
        }
      }

      // 2. Softmax numerators of what each row sees, and their sums.
      let sum0: f32 = 0,
        sum1: f32 = 0,
        sum2: f32 = 0,
        sum3: f32 = 0;
      for (let c = 0; c < count; c++) {
        const position = firstPosition + (i + c) / group;
        const scores = scratch + <usize>c * rowBytes;
        scaleAndMask(scores, width, firstSeen(position, window) - base, position - base, scale);
        sum3 = Softmax.exponentiate(scores, width);
        if (c == 0) sum0 = sum3;
        else if (c == 1) sum1 = sum3;
        else if (c == 2) sum2 = sum3;
      }
      if (count == 2) sum1 = sum3;

      // 3. Weighted values, as many columns at a time as have their chains in registers.
      const o0 = output + <usize>r0 * outputBytes + h0;
      const o1 = output + <usize>r1 * outputBytes + h1;
      if (count <= 2) {
        if (count == 1) sum1 = sum0;
        for (let column = 0; column < headDim; column += 16) {
          const at = (<usize>column) << 2;
          weighTwo(
            scratch,
            s1,
            base,
            first,
            last,
            valuePool,
            pageTable,
            kvHeads,
            kvHead,
            headDim,
            at,
            sum0,
            sum1,
            o0 + at,
            o1 + at,
          );
        }
      } else {
        const o2 = output + <usize>r2 * outputBytes + h2;
        const o3 = output + <usize>r3 * outputBytes + h3;
        for (let column = 0; column < headDim; column += 8) {
          const at = (<usize>column) << 2;
          weighFour(
            scratch,
            s1,
            s2,
            s3,
            base,
            first,
            last,
            valuePool,
            pageTable,
            kvHeads,
            kvHead,
            headDim,
            at,
            sum0,
            sum1,
            sum2,
            sum3,
            o0 + at,
            o1 + at,
            o2 + at,
            o3 + at,
          );
        }
      }
    }
  }
}

function firstSeen(position: i32, window: i32): i32 {
  return window > 0 ? max(position - window + 1, 0) : 0;
}

/** scores[first..last] *= scale, the rest of 0..width - 1 becomes minus infinity. */
function scaleAndMask(scores: usize, width: i32, first: i32, last: i32, scale: f32): void {
  const factor = f32x4.splat(scale);
  const lowest = f32.NEGATIVE_INFINITY;
  for (let i = 0; i < width; i += 4) {
    const at = scores + ((<usize>i) << 2);
    v128.store(at, f32x4.mul(v128.load(at), factor));
  }
  for (let i = 0; i < first; i++) store<f32>(scores + ((<usize>i) << 2), lowest);
  for (let i = last + 1; i < width; i++) store<f32>(scores + ((<usize>i) << 2), lowest);
}
