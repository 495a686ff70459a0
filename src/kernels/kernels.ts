import { readFileSync } from 'node:fs';

import { SmoeError } from '../errors.ts';
import type { KernelExports } from './exports.ts';

export type WeightType = 'bf16' | 'f32';

/** A matrix W: [outputs][inputs] packed in panels of 16 outputs; `pointer` is a byte offset. */
export interface PackedWeight {
  pointer: number;
  outputs: number;
  inputs: number;
  type: WeightType;
}

const wasmFile = new URL('../../kernels/kernels.wasm', import.meta.url);
const panelWidth = 16;
const pageSize = 16;
let compiled: WebAssembly.Module | undefined;

/**
 * The numeric kernels over one shared WebAssembly memory. Every pointer is a byte offset in that
 * memory, every stride and width counts elements, activations are row-major float32. Kernels keep no
 * state in the memory, so any number of threads may run them over it, each on regions of its own.
 *
 * Bits: each output depends on its own row of input only, never on how many rows were given, where the
 * row stood, or which range of columns was asked for. Sums over a row run in the "sixteen-lane order" of
 * assembly/lanes.ts; matrix products as one chain over k from +0, multiply and add rounded apart.
 * `reference.ts` computes the same bits in plain TypeScript.
 */
export class Kernels {
  /** First bytes of every memory: the kernels' constants, written when an instance is made. */
  static readonly reservedBytes: number = 65536;
  /** Outputs per panel of a packed weight. */
  static readonly panelWidth: number = panelWidth;
  /** Positions per page of the key-value cache. */
  static readonly pageSize: number = pageSize;

  readonly #exports: KernelExports;

  /** @param memory shared, at least `Kernels.reservedBytes` long, at most 65536 pages of maximum */
  constructor(memory: WebAssembly.Memory, module: WebAssembly.Module = Kernels.compile()) {
    const instance = new WebAssembly.Instance(module, { env: { memory } });
    this.#exports = instance.exports as unknown as KernelExports;
    const end = this.#exports.staticEnd();
    if (end > Kernels.reservedBytes) {
      throw new SmoeError(
        'KERNELS_STATIC_DATA',
        `the kernels' constants take ${end} bytes, more than the ${Kernels.reservedBytes} reserved`,
      );
    }
  }

  /** The compiled module, made once per thread; modules may also be posted to other threads. */
  static compile(): WebAssembly.Module {
    compiled ??= new WebAssembly.Module(readWasm());
    return compiled;
  }

  /** Panels of 16 outputs of a weight. */
  static panels(outputs: number): number {
    return Math.ceil(outputs / panelWidth);
  }

  /** Bytes of a packed weight of [outputs][inputs]. */
  static packedBytes(outputs: number, inputs: number, type: WeightType): number {
    return Kernels.panels(outputs) * panelWidth * inputs * (type === 'bf16' ? 2 : 4);
  }

  /** Whether rows of this width can be made compact. */
  static canCompact(width: number): boolean {
    return width % 16 === 0;
  }

  static longestCompactRow(width: number): number {
    return 1 + width * 4;
  }

  /** Bytes of one page in each of the two pools: 16 positions of all kvHeads. */
  static keyValuePageBytes(kvHeads: number, headDim: number): number {
    return kvHeads * headDim * pageSize * 4;
  }

  /** Bytes of `attention`'s scratch for sequences of up to maximumPositions; one call uses it at a time. */
  static attentionScratchBytes(maximumPositions: number): number {
    return 4 * 4 * pageSize * Math.ceil(maximumPositions / pageSize);
  }

  /**
   * Packs weight.outputs rows of a matrix [outputs][sourceRowStride] of the weight's own type, of which the
   * weight.inputs columns from sourceColumn.
   */
  packWeight(source: number, sourceRowStride: number, sourceColumn: number, weight: PackedWeight): void {
    const pack = weight.type === 'bf16' ? this.#exports.packBf16 : this.#exports.packF32;
    pack(source, sourceRowStride, sourceColumn, weight.pointer, weight.outputs, weight.inputs);
  }

  /** Row n of the weight, as float32 -> target: [inputs]. */
  unpackRow(weight: PackedWeight, n: number, target: number): void {
    const unpack = weight.type === 'bf16' ? this.#exports.unpackRowBf16 : this.#exports.unpackRowF32;
    unpack(weight.pointer, weight.inputs, n, target);
  }

  /** target[i] = row ids[i] of the weight, as float32; ids: i32 [rows], target: [rows][inputs]. */
  embedRows(weight: PackedWeight, ids: number, rows: number, target: number): void {
    const embed = weight.type === 'bf16' ? this.#exports.embedRowsBf16 : this.#exports.embedRowsF32;
    embed(weight.pointer, weight.inputs, ids, rows, target);
  }

  /**
   * y[m][n] = sum over k of x[m][k] * W[n][k]; x: [rows][xStride], y: [rows][yStride]. With panelStart and panelEnd
   * only the outputs 16 * panelStart .. min(16 * panelEnd, outputs) - 1 are written, to their own columns of y.
   */
  matmul(
    x: number,
    xStride: number,
    rows: number,
    weight: PackedWeight,
    y: number,
    yStride: number,
    panelStart: number = 0,
    panelEnd: number = Kernels.panels(weight.outputs),
  ): void {
    const multiply = weight.type === 'bf16' ? this.#exports.matmulBf16 : this.#exports.matmulF32;
    multiply(x, xStride, rows, weight.pointer, weight.outputs, weight.inputs, y, yStride, panelStart, panelEnd);
  }

  /**
   * y[row][i] = weight[i] * (x[row][i] / sqrt(mean of squares + epsilon)); weight: f32 [width]. For a norm per
   * head give rows * heads rows of headDim. y may be x.
   */
  rmsNorm(
    x: number,
    xStride: number,
    weight: number,
    y: number,
    yStride: number,
    rows: number,
    width: number,
    epsilon: number,
  ): void {
    this.#exports.rmsNorm(x, xStride, weight, y, yStride, rows, width, epsilon);
  }

  /** rmsNorm of rows that lie anywhere: row i at byte address addresses[i] -> y: [rows][width]. */
  rmsNormAt(addresses: number, weight: number, y: number, rows: number, width: number, epsilon: number): void {
    this.#exports.rmsNormAt(addresses, weight, y, rows, width, epsilon);
  }

  /** Fills cosines and sines: f32 [positions][dimension / 2], frequencies theta^(-2i / dimension). */
  ropeTables(cosines: number, sines: number, positions: number, dimension: number, theta: number): void {
    this.#exports.ropeTables(cosines, sines, positions, dimension, theta);
  }

  /**
   * Rotates x: [rows][stride], a row [heads][dimension], in place, pairing element i with i + dimension / 2.
   * positions: i32 [rows], rows of the tables.
   */
  applyRope(
    x: number,
    stride: number,
    positions: number,
    rows: number,
    heads: number,
    dimension: number,
    cosines: number,
    sines: number,
  ): void {
    this.#exports.applyRope(x, stride, positions, rows, heads, dimension, cosines, sines);
  }

  /** y[i] = e^x[i]; y may be x. */
  exponential(x: number, y: number, count: number): void {
    this.#exports.exponential(x, y, count);
  }

  /** gateUp: [rows][stride], a row [gate(width) | up(width)] -> y[row][i] = silu(gate[i]) * up[i]. y may be gateUp. */
  swiglu(gateUp: number, stride: number, y: number, yStride: number, rows: number, width: number): void {
    this.#exports.swiglu(gateUp, stride, y, yStride, rows, width);
  }

  /** Softmax of each row of x: [rows][stride], in place. */
  softmaxRows(x: number, stride: number, rows: number, width: number): void {
    this.#exports.softmaxRows(x, stride, rows, width);
  }

  /**
   * Puts keys and values of positions firstPosition.. of one sequence into its pages. key, value: [rows][stride], a
   * row [kvHeads][headDim]. pageTable: i32 page ids of the sequence in order; a pool is [pages][kvHeads] pages, of
   * keys [headDim][16], of values [16][headDim].
   */
  storeKeyValue(
    key: number,
    keyStride: number,
    value: number,
    valueStride: number,
    rows: number,
    firstPosition: number,
    pageTable: number,
    keyPool: number,
    valuePool: number,
    kvHeads: number,
    headDim: number,
  ): void {
    this.#exports.storeKeyValue(
      key,
      keyStride,
      value,
      valueStride,
      rows,
      firstPosition,
      pageTable,
      keyPool,
      valuePool,
      kvHeads,
      headDim,
    );
  }

  /**
   * Causal attention of one sequence: row r is position p = firstPosition + r and sees positions
   * max(0, p - window + 1)..p, all from 0 when window is 0; they must be stored, this call's own included.
   * query, output: [rows][stride], a row [heads][headDim]. scratch: `attentionScratchBytes`.
   * kvHeads divides heads, 16 divides headDim.
   */
  attention(
    query: number,
    queryStride: number,
    rows: number,
    firstPosition: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    scale: number,
    window: number,
    keyPool: number,
    valuePool: number,
    pageTable: number,
    output: number,
    outputStride: number,
    scratch: number,
  ): void {
    this.#exports.attention(
      query,
      queryStride,
      rows,
      firstPosition,
      heads,
      kvHeads,
      headDim,
      scale,
      window,
      keyPool,
      valuePool,
      pageTable,
      output,
      outputStride,
      scratch,
    );
  }

  /**
   * logits: [rows][stride] -> ids: i32 [rows][k], weights: f32 [rows][k], each row in ascending expert id. The k
   * largest logits, ties to the lower id; weights are softmax probabilities over all experts, divided by the sum of
   * the k (added in ascending id) when `normalize`.
   */
  routerTopK(
    logits: number,
    stride: number,
    rows: number,
    experts: number,
    k: number,
    normalize: boolean,
    ids: number,
    weights: number,
  ): void {
    this.#exports.routerTopK(logits, stride, rows, experts, k, normalize, ids, weights);
  }

  /**
   * logits: [rows][experts] of a router run ahead of time -> benefits: u8 [rows][homes] of living on each of `homes` ranks: the
   * expected number of the `ranks` that then need not be sent to, times scale, at most 255. An expert's probability rises over
   * `doubt` mean absolute deviations around the boundary of the k largest. owners: u16 [experts] rank, held: u8
   * [homes][experts], scratch: f32 [k + 1 + ranks * (homes + 1)].
   */
  routeAhead(
    logits: number,
    rows: number,
    experts: number,
    k: number,
    doubt: number,
    {
      owners,
      ranks,
      held,
      homes,
      scale,
    }: { owners: number; ranks: number; held: number; homes: number; scale: number },
    scratch: number,
    benefits: number,
  ): void {
    this.#exports.routeAhead(
      ...([logits, rows, experts, k, doubt, owners, ranks, held, homes, scale] as const),
      scratch,
      benefits,
    );
  }

  /** target[i] = the row at byte address addresses[i]; addresses: i32 [rows], target: [rows][width]. */
  gatherAt(addresses: number, target: number, rows: number, width: number): void {
    this.#exports.gatherAt(addresses, target, rows, width);
  }

  /** target[i] = source[index[i]]; index: i32 [rows]. */
  gatherRows(source: number, index: number, target: number, rows: number, width: number): void {
    this.#exports.gatherRows(source, index, target, rows, width);
  }

  /** target[index[i]] = source[i]. */
  scatterRows(source: number, index: number, target: number, rows: number, width: number): void {
    this.#exports.scatterRows(source, index, target, rows, width);
  }

  /**
   * target = compact rows (assembly/compact-rows.ts) of source[index[i]], or of source[i] without index, one after the other, of at most
   * `Kernels.longestCompactRow` bytes each; index: i32 [rows], width: one that `canCompact`. Returns the bytes written.
   */
  compactRows(source: number, index: number | undefined, target: number, rows: number, width: number): number {
    return this.#exports.compactRows(source, index ?? 0, target, rows, width);
  }

  /** target[index[i]], or target[i] without index, = the i-th compact row at `source`. Returns the bytes read. */
  expandRows(source: number, index: number | undefined, target: number, rows: number, width: number): number {
    return this.#exports.expandRows(source, index ?? 0, target, rows, width);
  }

  /** target[index[i]] += source[i], i ascending. */
  scatterAddRows(source: number, index: number, target: number, rows: number, width: number): void {
    this.#exports.scatterAddRows(source, index, target, rows, width);
  }

  /** target[index[i]] += weights[i] * source[i], the product rounded first, i ascending; weights: f32 [rows]. */
  scatterAddWeighted(
    source: number,
    index: number,
    weights: number,
    target: number,
    rows: number,
    width: number,
  ): void {
    this.#exports.scatterAddWeighted(source, index, weights, target, rows, width);
  }

  /** target[i] += source[i]. */
  addRows(target: number, source: number, count: number): void {
    this.#exports.addTo(target, source, target, count);
  }

  /** target[i] = a[i] + b[i]; target may be a or b. */
  addTo(a: number, b: number, target: number, count: number): void {
    this.#exports.addTo(a, b, target, count);
  }

  /** Copies `bytes`; the regions may overlap. */
  copy(source: number, target: number, bytes: number): void {
    this.#exports.copy(source, target, bytes);
  }

  /** Zeroes `bytes`. */
  fillZero(target: number, bytes: number): void {
    this.#exports.fillZero(target, bytes);
  }

  /** Lowest index of the largest element; NaN is passed over, and -1 says that there was nothing else. */
  argmaxRow(x: number, count: number): number {
    return this.#exports.argmaxRow(x, count);
  }

  /** Reads `bytes`, rounded down to 128, as fast as memory allows, and returns a checksum. */
  streamSum(pointer: number, bytes: number): number {
    return this.#exports.streamSum(pointer, bytes);
  }
}

function readWasm(): Uint8Array {
  try {
    return readFileSync(wasmFile);
  } catch (cause) {
    throw new SmoeError('KERNELS_NOT_BUILT', `cannot read ${wasmFile.pathname}`, {
      hint: 'run `npm run build`',
      cause,
    });
  }
}
