/** The tokens slices are chosen for. */
export interface SlicedTokens {
  /** T */
  tokens: number;
  /** [T] */
  tokenIds: Int32Array;
}

/** Which tokens each rank of the tensor group takes through the MoE layer. */
export interface TokenSlices {
  /** [T] token indices grouped by tensor rank, ascending within a rank; undefined = identity. */
  order: Int32Array | undefined;
  /** [tp] tokens per rank; sizes differ by at most one. */
  counts: Int32Array;
}

/**
 * Chooses slices before attention outputs are reduced; every rank of the group must choose the same. Layers of a step are
 * asked for in order, and a layer's slices stay valid until the next but one are chosen.
 */
export interface SliceChooser {
  choose(layer: number, input: SlicedTokens): TokenSlices;
  /** Bytes that each hidden row must bring along for this layer's choice. */
  ridingBytes(layer: number): number;
  /**
   * At the end of the layer before: what this rank's rows bring.
   *
   * @param residual pointer [rows, H], @param target pointer [rows, ridingBytes]
   */
  packRiding(layer: number, residual: number, rows: number, target: number): void;
  /** What rows of other ranks (and this one's) brought. @param source pointer [tokens.length, ridingBytes] */
  unpackRiding(layer: number, source: number, tokens: Int32Array): void;
  /** Whether the choice for this layer can be made before its rows have arrived. */
  choosesEarly(layer: number): boolean;
}

/** [tp] sizes of near-equal slices of `tokens`. */
export function sliceSizes(tokens: number, ranks: number, sizes: Int32Array): Int32Array {
  const least = Math.floor(tokens / ranks);
  for (let rank = 0; rank < ranks; rank++) sizes[rank] = least + (rank < tokens % ranks ? 1 : 0);
  return sizes;
}

/** First token (in shard order) and number of tokens of a rank. */
export function sliceOf(counts: Int32Array, rank: number): { first: number; rows: number } {
  let first = 0;
  for (let before = 0; before < rank; before++) first += counts[before]!;
  return { first, rows: counts[rank]! };
}

/** Slices by token index: what engines without prediction do. */
export class ContiguousSlices implements SliceChooser {
  readonly #sizes: Int32Array;

  constructor(ranks: number) {
    this.#sizes = new Int32Array(ranks);
  }

  choose(_layer: number, { tokens }: SlicedTokens): TokenSlices {
    return { order: undefined, counts: sliceSizes(tokens, this.#sizes.length, this.#sizes) };
  }

  ridingBytes(): number {
    return 0;
  }

  packRiding(): void {}

  unpackRiding(): void {}

  choosesEarly(): boolean {
    return false;
  }
}
