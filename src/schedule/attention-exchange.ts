import { shardLength } from '../comm/shards.ts';
import { Phase } from '../timeline/phases.ts';
import { collective, reduceScatter } from './collective.ts';
import { RowSegments, longestSegment } from './row-segments.ts';
import { sumTree } from './partial-sums.ts';
import type { LayerInput, LayerSteps, ScheduleResources } from './schedule.ts';
import { SliceGather } from './slice-gather.ts';
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
  readonly #compact: RowSegments | undefined;
  readonly #oneShot: RowSegments;
  readonly #gather: SliceGather;

  constructor(resources: ScheduleResources) {
    this.#resources = resources;
    this.#floatCounts = new Int32Array(resources.tensorGroup.size);
    this.#compact = resources.compactRows ? new RowSegments(resources, resources.tensorGroup, true) : undefined;
    this.#oneShot = this.#compact ?? new RowSegments(resources, resources.tensorGroup, false);
    this.#gather = new SliceGather(resources);
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
    if (this.#compact !== undefined) return yield* this.#reduceScatterCompact(this.#compact, input, slices);
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

  /** Partial rows to their ranks; added here, in the order of the reduce-scatter. */
  *#reduceScatterCompact(segments: RowSegments, input: LayerInput, slices: TokenSlices): LayerSteps<number> {
    const { tensorGroup, hiddenSize, buffers, clock } = this.#resources;
    const { first, rows } = sliceOf(slices.counts, tensorGroup.rank);
    const rowBytes = hiddenSize * 4;
    segments.begin(buffers.send, buffers.result);
    let at = input.attention;
    slices.counts.forEach((count, rank) => {
      if (rank !== tensorGroup.rank) {
        segments.open(rank);
        segments.addRows(at, undefined, count);
        segments.expect(rank, longestSegment(rows, hiddenSize));
      }
      at += count * rowBytes;
    });
    const sent = segments.start('attention');
    this.#gatherOwnRows(input, slices);
    yield sent;
    clock.enter(Phase.router);
    this.#addPartials(segments, input.attention + first * rowBytes, rows);
    return buffers.residual;
  }

  /**
   * One-shot all-reduce: partial rows of all tokens to all tensor ranks, each of which adds them.
   *
   * @returns pointer [T, H] of all residual rows
   */
  *oneShot(input: LayerInput): LayerSteps<number> {
    const { kernels, tensorGroup, hiddenSize, buffers, clock } = this.#resources;
    const { tokens } = input;
    const segments = this.#oneShot;
    clock.enter(Phase.router);
    segments.begin(buffers.send, buffers.result);
    segments.openForAll();
    segments.addRows(input.attention, undefined, tokens);
    segments.repeatForAll();
    for (let rank = 0; rank < tensorGroup.size; rank++)
      if (rank !== tensorGroup.rank) segments.expect(rank, longestSegment(tokens, hiddenSize));
    const sent = segments.start('attention');
    kernels.gatherAt(input.addresses, buffers.residual, tokens, hiddenSize);
    yield sent;
    clock.enter(Phase.router);
    this.#addPartials(segments, input.attention, tokens);
    return buffers.residual;
  }

  /** residual [rows, H] += partial rows of all tensor ranks, own ones at `own`. */
  #addPartials(segments: RowSegments, own: number, rows: number): void {
    const { kernels, tensorGroup, hiddenSize, buffers } = this.#resources;
    const rowBytes = hiddenSize * 4;
    // One block per rank; partial sums of experts take their place later.
    const partials = buffers.homePartials;
    for (let rank = 0; rank < tensorGroup.size; rank++) {
      const block = partials + rank * rows * rowBytes;
      if (rank === tensorGroup.rank) kernels.copy(own, block, rows * rowBytes);
      else segments.takeRows(rank, 0, 0, undefined, block, rows);
    }
    sumTree(kernels, partials, tensorGroup.size, rows * rowBytes, rows * hiddenSize);
    kernels.addRows(buffers.residual, partials, rows * hiddenSize);
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

  /** All-gather: residual slices of all ranks -> every token's row, at the addresses then written. */
  allGather(input: LayerInput, slices: TokenSlices, chooser: SliceChooser): LayerSteps {
    return this.#gather.run(input, slices, chooser);
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
