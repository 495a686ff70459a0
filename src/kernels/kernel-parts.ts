/** Kernel calls that are worth sharing between threads, cut into parts that write different outputs. */
import type { Kernels, PackedWeight } from './kernels.ts';

/** Multiplications below which a call is done before a helper would have begun. */
export const fewestShared: number = 2 ** 17;
/** Parts per thread: enough that a thread held up by something else does not hold up the call. */
const partsPerThread = 4;

export const CallKind = { matmulBf16: 0, matmulF32: 1, attention: 2 } as const;

/** Parts a call is cut into at most. */
export function mostParts(threads: number): number {
  return threads * partsPerThread;
}

/** Number of parts of `count` units each, at least `least` units a part. */
export function partsFor(count: number, least: number, threads: number): number {
  return Math.max(1, Math.min(mostParts(threads), Math.floor(count / least)));
}

/** Units from..to of part `part`; boundaries at multiples of `step`. */
export function rangeOf(part: number, parts: number, count: number, step: number): { from: number; to: number } {
  const at = (index: number): number =>
    index === parts ? count : Math.floor(Math.floor((count * index) / parts) / step) * step;
  return { from: at(part), to: at(part + 1) };
}

/** Runs a part of a call as `ThreadedKernels` lays it down. */
export function runPart(kernels: Kernels, kind: number, args: readonly number[], part: number): void {
  if (kind === CallKind.attention) runAttentionPart(kernels, args, part);
  else runMatmulPart(kernels, kind, args, part);
}

function runMatmulPart(kernels: Kernels, kind: number, args: readonly number[], part: number): void {
  const [parts, x, xStride, rows, pointer, outputs, inputs, y, yStride, panelStart, panelEnd] = args as number[];
  const weight: PackedWeight = {
    pointer: pointer!,
    outputs: outputs!,
    inputs: inputs!,
    type: kind === CallKind.matmulBf16 ? 'bf16' : 'f32',
  };
  // The kernel takes panels two at a time.
  const { from, to } = rangeOf(part, parts!, panelEnd! - panelStart!, 2);
  if (from < to) kernels.matmul(x!, xStride!, rows!, weight, y!, yStride!, panelStart! + from, panelStart! + to);
}

const scaleBits = new DataView(new ArrayBuffer(4));

/** A float32 as an argument of a call. */
export function floatToWord(value: number): number {
  scaleBits.setFloat32(0, value);
  return scaleBits.getUint32(0);
}

function wordToFloat(word: number): number {
  scaleBits.setUint32(0, word);
  return scaleBits.getFloat32(0);
}

/** Rows of attention know nothing of each other. Every part has scratch memory of its own. */
function runAttentionPart(kernels: Kernels, args: readonly number[], part: number): void {
  const [parts, query, queryStride, rows, firstPosition, heads, kvHeads, headDim, scale, window] = args as number[];
  const [keyPool, valuePool, pageTable, output, outputStride, scratch, scratchBytes] = args.slice(10);
  const { from, to } = rangeOf(part, parts!, rows!, 1);
  if (from === to) return;
  kernels.attention(
    query! + from * queryStride! * 4,
    queryStride!,
    to - from,
    firstPosition! + from,
    heads!,
    kvHeads!,
    headDim!,
    wordToFloat(scale!),
    window!,
    keyPool!,
    valuePool!,
    pageTable!,
    output! + from * outputStride! * 4,
    outputStride!,
    scratch! + part * scratchBytes!,
  );
}
