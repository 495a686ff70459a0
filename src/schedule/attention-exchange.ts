import { shardLength } from '../comm/shards.ts';
import { Phase } from '../timeline/phases.ts';
import { allGather, collective, type Collective, reduceScatter } from './collective.ts';
import type { LayerInput, LayerSteps, ScheduleResources } from './schedule.ts';
import { sliceOf, type SliceChooser, type TokenSlices } from './token-slices.ts';

/**
 * The collectives around attention: partial outputs of all tensor ranks become residual rows of this rank's slice, and
 * afterwards every rank's slice becomes all rows again. With one tensor rank both work in place and send nothing.
 *
 * Shuffling costs no copy of hidden rows: attention writes its output in the slices' order, and gathered rows stay where they
 * arrive; `LayerInput.addresses` says where each token's row is.
 */
export class AttentionExchange {
  readonly #resources: ScheduleResources;
  readonly #floatCounts: Int32Array;
  /** One per piece of the gather in flight. */
  readonly #pieceBytes: Int32Array[];

  constructor(resources: ScheduleResources) {
    this.#resources = resources;
    this.#floatCounts = new Int32Array(resources.tensorGroup.size);
    this.#pieceBytes = [];
  }

  /**
   * Reduce-scatter: hidden slice + summed attention slice.
   *
   * @returns pointer [S, H] of this rank's residual rows
   */
  *reduceScatter(input: LayerInput, slices: TokenSlices): LayerSteps<number> {
    const { kernels, tensorGroup, hiddenSize, buffers, clock } = this.#resources;
    clock.enter(Phase.router);
    if (tensorGroup.size === 1) return this.#addInPlace(input);
    const { rows } = sliceOf(slices.counts, tensorGroup.rank);
    slices.counts.forEach((count, rank) => (this.#floatCounts[rank] = count * hiddenSize));
    const request = tensorGroup.startReduceScatter(
      this.#floats(input.attention, input.tokens),
      this.#floatCounts,
      this.#floats(buffers.reduced, rows),
      'attention',
    );
    const sum = reduceScatter(request, 'attention', tensorGroup.rank, this.#floatCounts);
    // Own rows are fetched while the sum is under way.
    this.#gatherOwnRows(input, slices);
    yield sum;
    clock.enter(Phase.router);
    kernels.addRows(buffers.residual, buffers.reduced, rows * hiddenSize);
    return buffers.residual;
  }

  /** All-reduce, as schedules without a scattered residual do; returns the residual rows of this rank's contiguous slice. */
  *allReduce(input: LayerInput, slices: TokenSlices): LayerSteps<number> {
    const { kernels, tensorGroup, hiddenSize, buffers, clock } = this.#resources;
    clock.enter(Phase.router);
    if (tensorGroup.size === 1) return this.#addInPlace(input);
    const { first, rows } = sliceOf(slices.counts, tensorGroup.rank);
    const floats = this.#floats(input.attention, input.tokens);
    const shard = shardLength(floats.length, tensorGroup.size, tensorGroup.rank);
    const moved = 4 * (floats.length - shard + shard * (tensorGroup.size - 1));
    const allReduce = collective(tensorGroup.startAllReduce(floats, 'attention'), 'attention', moved, () => moved);
    this.#gatherOwnRows(input, slices);
    yield allReduce;
    clock.enter(Phase.router);
    kernels.addRows(buffers.residual, input.attention + first * hiddenSize * 4, rows * hiddenSize);
    return buffers.residual;
  }

  /**
   * All-gather: residual slices of all ranks -> every token's row, at the addresses then written. What rows bring along for the
   * next layer's slices goes ahead of the first piece's rows. When rows are taken as they arrive, the gather is cut into
   * pieces, all in flight at once.
   */
  *allGather(input: LayerInput, slices: TokenSlices, chooser: SliceChooser): LayerSteps {
    const { tensorGroup, hiddenSize, buffers, bytes } = this.#resources;
    const next = input.last ? -1 : input.layer + 1;
    if (tensorGroup.size === 1) return;
    const { counts } = slices;
    const riding = next === -1 ? 0 : chooser.ridingBytes(next);
    const rows = counts[tensorGroup.rank]!;
    const ridingHere = roundUp(rows * riding, 4);
    if (riding > 0) chooser.packRiding(next, buffers.residual, rows, buffers.residual - ridingHere);
    this.#resources.clock.enter(Phase.other);

    const rowBytes = hiddenSize * 4;
    const { pieces } = input;
    const collectives: Collective[] = [];
    let target = buffers.gathered;
    for (let piece = 0; piece < pieces; piece++) {
      const byteCounts = (this.#pieceBytes[piece] ??= new Int32Array(counts.length));
      let total = 0;
      counts.forEach((count, rank) => {
        const { rows: inPiece } = pieceOf(count, piece, pieces);
        byteCounts[rank] = inPiece * rowBytes + (piece === 0 ? roundUp(count * riding, 4) : 0);
        total += byteCounts[rank]!;
      });
      const source = buffers.residual + pieceOf(rows, piece, pieces).first * rowBytes - (piece === 0 ? ridingHere : 0);
      const request = tensorGroup.startAllGather(
        bytes.subarray(source, source + byteCounts[tensorGroup.rank]!),
        bytes.subarray(target, target + total),
        byteCounts,
        'attention',
      );
      collectives.push(allGather(request, 'attention', tensorGroup.rank, byteCounts));
      target += total;
    }
    if (next !== -1 && input.preparesSlices && chooser.choosesEarly(next)) chooser.choose(next, input);
    let segment = buffers.gathered;
    for (let piece = 0; piece < pieces; piece++) {
      yield collectives[piece]!;
      segment = this.#arrived(input, slices, chooser, riding, piece, segment, collectives[piece + 1]);
    }
  }

  /** Notes where a piece's rows are and hands them on. Returns where the next piece begins. */
  #arrived(
    input: LayerInput,
    slices: TokenSlices,
    chooser: SliceChooser,
    riding: number,
    piece: number,
    start: number,
    underWay: Collective | undefined,
  ): number {
    const { hiddenSize, buffers, integers, clock } = this.#resources;
    const rowBytes = hiddenSize * 4;
    const addresses = input.addresses / 4;
    const { order, counts } = slices;
    clock.enter(Phase.permute);
    // 1. Where everything is.
    const firstRow: number[] = [];
    let at = start;
    let before = 0;
    counts.forEach((count) => {
      if (riding > 0 && piece === 0) {
        const tokens = order === undefined ? indices(before, count) : order.subarray(before, before + count);
        chooser.unpackRiding(input.layer + 1, at, tokens);
        at += roundUp(count * riding, 4);
      }
      firstRow.push(at);
      const { first, rows } = pieceOf(count, piece, input.pieces);
      for (let i = before + first; i < before + first + rows; i++, at += rowBytes)
        integers[addresses + (order === undefined ? i : order[i]!)] = at;
      before += count;
    });
    // 2. Slices of the next layer, while later pieces are under way.
    if (riding > 0 && piece === 0 && input.preparesSlices) chooser.choose(input.layer + 1, input);
    // 3. Rows, to whoever takes them early.
    if (input.onRows === undefined) return at;
    if (piece === 0 && order === undefined) for (let i = 0; i < input.tokens; i++) integers[buffers.order / 4 + i] = i;
    before = 0;
    counts.forEach((count, rank) => {
      const { first, rows } = pieceOf(count, piece, input.pieces);
      if (rows > 0) input.onRows!(firstRow[rank]!, buffers.order + (before + first) * 4, rows);
      // A look at the network between the ranks' rows keeps the pieces under way moving.
      underWay?.request.test();
      before += count;
    });
    return at;
  }

  /** residual [S, H] = the own tokens' rows. */
  #gatherOwnRows({ addresses }: LayerInput, { order, counts }: TokenSlices): void {
    const { kernels, tensorGroup, hiddenSize, buffers, integers } = this.#resources;
    const { first, rows } = sliceOf(counts, tensorGroup.rank);
    for (let row = 0; row < rows; row++) {
      const token = order === undefined ? first + row : order[first + row]!;
      integers[buffers.ownAddresses / 4 + row] = integers[addresses / 4 + token]!;
    }
    kernels.gatherAt(buffers.ownAddresses, buffers.residual, rows, hiddenSize);
  }

  #addInPlace(input: LayerInput): number {
    this.#resources.kernels.addRows(input.hidden, input.attention, input.tokens * this.#resources.hiddenSize);
    return input.hidden;
  }

  #floats(pointer: number, rows: number): Float32Array {
    const first = pointer / 4;
    return this.#resources.floats.subarray(first, first + rows * this.#resources.hiddenSize);
  }
}

/** Rows of a slice that travel in a piece. */
function pieceOf(count: number, piece: number, pieces: number): { first: number; rows: number } {
  const first = Math.floor((count * piece) / pieces);
  return { first, rows: Math.floor((count * (piece + 1)) / pieces) - first };
}

function indices(first: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => first + i);
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
