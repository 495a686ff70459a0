import type { Kernels, PackedWeight } from '../kernels/kernels.ts';
import type { ModelConfig } from '../model/config.ts';
import type { Ownership } from '../schedule/ownership.ts';

/** One MoE layer's weights on this rank. Experts not held here are undefined. */
export interface MoeLayerWeights {
  /** Pointer to f32 [H]. */
  postAttentionNorm: number;
  /** [N, H] */
  router: PackedWeight;
  experts: ({ gateUp: PackedWeight; down: PackedWeight } | undefined)[];
}

/** Rows one expert computes at a time; larger groups are cut, which changes no bit. */
export const expertChunkRows = 256;

/** Byte offsets of the bank's scratch; sizes in floats beside each. */
export interface ExpertBankBuffers {
  /** [routerRows, N] */
  routerLogits: number;
  /** [L, N] uint16 device of each expert; [k + 1 + P] scratch. */
  owners: number;
  needsScratch: number;
  /** [expertChunkRows, H] */
  gathered: number;
  /** [expertChunkRows, 2 * expertWidth] */
  gateUp: number;
  /** [expertChunkRows, expertWidth] */
  activated: number;
  /** [expertChunkRows, H] */
  output: number;
}

/** Receives a chunk of an expert's output: rows `start .. start + rows` of the index list, at `output` [rows, H]. */
export type ExpertSink = (output: number, start: number, rows: number) => void;

/** The router and the experts a rank holds, as operations on rows of its memory. */
export class ExpertBank {
  readonly #kernels: Kernels;
  readonly #config: ModelConfig;
  readonly #layers: MoeLayerWeights[];
  readonly #buffers: ExpertBankBuffers;
  readonly #integers: Int32Array;
  readonly #devices: number;

  constructor(
    kernels: Kernels,
    integers: Int32Array,
    config: ModelConfig,
    layers: MoeLayerWeights[],
    buffers: ExpertBankBuffers,
    { ownerDevice, devices }: Ownership,
  ) {
    this.#kernels = kernels;
    this.#integers = integers;
    this.#config = config;
    this.#layers = layers;
    this.#buffers = buffers;
    this.#devices = devices;
    new Uint16Array(integers.buffer, buffers.owners, ownerDevice.length).set(ownerDevice);
  }

  holds(layer: number, expert: number): boolean {
    return this.#layers[layer]!.experts[expert] !== undefined;
  }

  /** Post-attention norm and router: hidden [rows, H] -> normalized [rows, H], logits [rows, N]. */
  routerLogits(layer: number, hidden: number, rows: number, normalized: number, logits: number): void {
    const { hiddenSize, experts, rmsEpsilon } = this.#config;
    const weights = this.#layers[layer]!;
    this.#kernels.rmsNorm(
      hidden,
      hiddenSize,
      weights.postAttentionNorm,
      normalized,
      hiddenSize,
      rows,
      hiddenSize,
      rmsEpsilon,
    );
    this.#kernels.matmul(normalized, hiddenSize, rows, weights.router, logits, experts);
  }

  /**
   * The router ahead of time, on rows that are not yet this layer's: which plan devices they will need.
   *
   * @param normalized scratch [rows, H]
   * @param needs pointer u8 [rows, P]
   */
  routeAhead(layer: number, hidden: number, rows: number, normalized: number, doubt: number, needs: number): void {
    const { experts, topK } = this.#config;
    const { routerLogits, owners, needsScratch } = this.#buffers;
    const ofLayer = owners + layer * experts * 2;
    this.routerLogits(layer, hidden, rows, normalized, routerLogits);
    this.#kernels.routerNeeds(routerLogits, rows, experts, topK, doubt, ofLayer, this.#devices, needsScratch, needs);
  }

  /** Norm, router and top-k: ids and weights [rows, k], ascending expert id within a row. */
  normalizeAndRoute(
    layer: number,
    hidden: number,
    rows: number,
    normalized: number,
    ids: number,
    weights: number,
  ): void {
    const { experts, topK, normalizeTopK } = this.#config;
    const logits = this.#buffers.routerLogits;
    this.routerLogits(layer, hidden, rows, normalized, logits);
    this.#kernels.routerTopK(logits, experts, rows, experts, topK, normalizeTopK, ids, weights);
  }

  /**
   * Runs one expert over the rows `base[index[i]]`, i < count, handing its unweighted outputs to `sink` chunk by chunk.
   *
   * @param base pointer of [*, H] rows
   * @param index pointer of int32 row numbers
   */
  run(layer: number, expert: number, base: number, index: number, count: number, sink: ExpertSink): void {
    const weights = this.#layers[layer]!.experts[expert]!;
    const { hiddenSize, expertWidth } = this.#config;
    const { gathered, gateUp, activated, output } = this.#buffers;
    const kernels = this.#kernels;
    for (let start = 0; start < count; start += expertChunkRows) {
      const rows = Math.min(expertChunkRows, count - start);
      let input = gathered;
      if (rows === 1) input = base + this.#integers[index / 4 + start]! * hiddenSize * 4;
      else kernels.gatherRows(base, index + start * 4, gathered, rows, hiddenSize);
      kernels.matmul(input, hiddenSize, rows, weights.gateUp, gateUp, 2 * expertWidth);
      kernels.swiglu(gateUp, 2 * expertWidth, activated, expertWidth, rows, expertWidth);
      kernels.matmul(activated, expertWidth, rows, weights.down, output, hiddenSize);
      sink(output, start, rows);
    }
  }
}
