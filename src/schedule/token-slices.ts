import type { LayerInput } from './schedule.ts';

/** Which tokens each rank of the tensor group takes through the MoE layer. */
export interface TokenSlices {
  /** [T] token indices grouped by tensor rank, ascending within a rank; undefined = identity. */
  order: Int32Array | undefined;
  /** [tp] tokens per rank; sizes differ by at most one, the first T % tp ranks take one more. */
  counts: Int32Array;
}

/** Chooses slices before attention outputs are reduced; every rank of the group must choose the same. */
export interface SliceChooser {
  choose(input: LayerInput): TokenSlices;
}

/** [tp] sizes of near-equal slices of `tokens`. */
export function sliceSizes(tokens: number, ranks: number, sizes: Int32Array): Int32Array {
  const least = Math.floor(tokens / ranks);
  for (let rank = 0; rank < ranks; rank++) sizes[rank] = least + (rank < tokens % ranks ? 1 : 0);
  return sizes;
}

/** Slices by token index: what engines without prediction do. */
export class ContiguousSlices implements SliceChooser {
  readonly #sizes: Int32Array;

  constructor(ranks: number) {
    this.#sizes = new Int32Array(ranks);
  }

  choose(input: LayerInput): TokenSlices {
    return { order: undefined, counts: sliceSizes(input.tokens, this.#sizes.length, this.#sizes) };
  }
}
