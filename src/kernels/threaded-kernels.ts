/** Kernels whose larger calls are shared with helper threads over the same memory; bits are those of `Kernels`. */
import { Worker } from 'node:worker_threads';
import { createTeamArea, KernelTeam } from './kernel-team.ts';
import { CallKind, fewestShared, floatToWord, mostParts, partsFor, runPart } from './kernel-parts.ts';
import { Kernels, type PackedWeight } from './kernels.ts';

/** `workerData` of a helper. */
export interface HelperStart {
  memory: WebAssembly.Memory;
  module: WebAssembly.Module;
  area: SharedArrayBuffer;
}

export class ThreadedKernels extends Kernels {
  readonly #threads: number;
  readonly #team: KernelTeam;
  /** One part's share of a call, on this thread. */
  readonly #alone: Kernels;
  readonly #run: (kind: number, args: readonly number[], part: number) => void;
  readonly #helpers: Worker[];

  /** @param threads all threads that compute, this one included */
  constructor(memory: WebAssembly.Memory, threads: number) {
    super(memory);
    this.#threads = threads;
    this.#alone = new Kernels(memory);
    this.#run = (kind, args, part) => runPart(this.#alone, kind, args, part);
    const area = createTeamArea();
    this.#team = new KernelTeam(area);
    const extension = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    const entry = new URL(`./kernel-helper${extension}`, import.meta.url);
    const workerData: HelperStart = { memory, module: Kernels.compile(), area };
    this.#helpers = Array.from({ length: threads - 1 }, () => {
      const helper = new Worker(entry, { workerData });
      helper.unref();
      return helper;
    });
  }

  /** Regions of `attentionScratchBytes` that `attention` needs, one after the other, from a rank of so many threads. */
  static attentionScratches(threads: number): number {
    return threads === 1 ? 1 : mostParts(threads);
  }

  /** Ends the helpers; calls go on without them. */
  async close(): Promise<void> {
    await Promise.all(this.#helpers.map((helper) => helper.terminate()));
  }

  override matmul(
    x: number,
    xStride: number,
    rows: number,
    weight: PackedWeight,
    y: number,
    yStride: number,
    panelStart: number = 0,
    panelEnd: number = Kernels.panels(weight.outputs),
  ): void {
    const { pointer, outputs, inputs, type } = weight;
    const panels = panelEnd - panelStart;
    const parts = partsFor(panels, 2, this.#threads);
    if (parts === 1 || rows * panels * Kernels.panelWidth * inputs < fewestShared) {
      super.matmul(x, xStride, rows, weight, y, yStride, panelStart, panelEnd);
      return;
    }
    const kind = type === 'bf16' ? CallKind.matmulBf16 : CallKind.matmulF32;
    const args = [parts, x, xStride, rows, pointer, outputs, inputs, y, yStride, panelStart, panelEnd];
    this.#team.call(kind, args, parts, this.#run);
  }

  override attention(
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
    const parts = partsFor(rows, 4, this.#threads);
    const positions = firstPosition + rows;
    const shape = [query, queryStride, rows, firstPosition, heads, kvHeads, headDim] as const;
    const memory = [keyPool, valuePool, pageTable, output, outputStride, scratch] as const;
    if (parts === 1 || rows * heads * headDim * positions < fewestShared) {
      super.attention(...shape, scale, window, ...memory);
      return;
    }
    const args = [parts, ...shape, floatToWord(scale), window, ...memory, Kernels.attentionScratchBytes(positions)];
    this.#team.call(CallKind.attention, args, parts, this.#run);
  }
}
