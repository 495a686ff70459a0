import type { Kernels, PackedWeight } from '../kernels/kernels.ts';
import type { ModelConfig } from '../model/config.ts';
import { certainNeed, oneRankSaved } from '../predict/predictor.ts';
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
  /** [L, N] uint16 rank that owns each expert; [L, tp, N] uint8 whether a tensor rank holds it; [k + 1 + G * (tp + 1)] scratch. */
  owners: number;
  held: number;
  aheadScratch: number;
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
  readonly #placement: { ranks: number; homes: number; scale: number };

  constructor(
    kernels: Kernels,
    integers: Int32Array,
    config: ModelConfig,
    layers: MoeLayerWeights[],
    buffers: ExpertBankBuffers,
    ownership: Ownership,
    firstHome: number,
    homes: number,
  ) {
    this.#kernels = kernels;
    this.#integers = integers;
    this.#config = config;
    this.#layers = layers;
    this.#buffers = buffers;
    const { ranks, copies } = ownership;
    this.#placement = { ranks, homes, scale: copies ? oneRankSaved : certainNeed };
    this.#tellPlacement(ownership, firstHome);
  }

  /** Writes down for the kernels who owns and who holds what. */
  #tellPlacement(ownership: Ownership, firstHome: number): void {
    const { layers, experts } = this.#config;
    const { homes } = this.#placement;
    const owners = new Uint16Array(this.#integers.buffer, this.#buffers.owners, layers * experts);
    const held = new Uint8Array(this.#integers.buffer, this.#buffers.held, layers * homes * experts);
    for (let layer = 0; layer < layers; layer++) {
      for (let expert = 0; expert < experts; expert++)
        owners[layer * experts + expert] = ownership.ownerRank(layer, expert);
      for (let home = 0; home < homes; home++) {
        const rank = firstHome + home;
        for (const expert of [...ownership.ownedExperts[layer]![rank]!, ...ownership.copiedExperts[layer]![rank]!])
          held[(layer * homes + home) * experts + expert] = 1;
      }
    }
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
   * The router ahead of time, on rows that are not yet this layer's: what living on each rank of the tensor group would save.
   *
   * @param normalized scratch [rows, H]
   * @param benefits pointer u8 [rows, tensor ranks]
   */
  routeAhead(layer: number, hidden: number, rows: number, normalized: number, doubt: number, benefits: number): void {
    const { experts, topK } = this.#config;
    const { routerLogits, owners, held, aheadScratch } = this.#buffers;
    const { ranks, homes, scale } = this.#placement;
    const placement = {
      owners: owners + layer * experts * 2,
      ranks,
      held: held + layer * homes * experts,
      homes,
      scale,
    };
    this.routerLogits(layer, hidden, rows, normalized, routerLogits);
    this.#kernels.routeAhead(routerLogits, rows, experts, topK, doubt, placement, aheadScratch, benefits);
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
