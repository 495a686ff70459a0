import { shardLength } from '../comm/shards.ts';
import { Phase } from '../timeline/phases.ts';
import { allGather, reduceScatter } from './collective.ts';
import type { LayerInput, LayerSteps, ScheduleResources } from './schedule.ts';
import type { TokenSlices } from './token-slices.ts';

/**
 * The collectives around attention: partial outputs of all tensor ranks become residual rows of this rank's slice, and
 * afterwards every rank's slice becomes all rows again. With one tensor rank both work in place and send nothing.
 */
export class AttentionExchange {
  readonly #resources: ScheduleResources;
  readonly #floatCounts: Int32Array;
  readonly #byteCounts: Int32Array;

  constructor(resources: ScheduleResources) {
    this.#resources = resources;
    this.#floatCounts = new Int32Array(resources.tensorGroup.size);
    this.#byteCounts = new Int32Array(resources.tensorGroup.size);
  }

  /**
   * Reduce-scatter (shuffled when the slices have an order): hidden slice + summed attention slice.
   *
   * @returns pointer [S, H] of this rank's residual rows
   */
  *reduceScatter(input: LayerInput, slices: TokenSlices): LayerSteps<number> {
    const { kernels, tensorGroup, hiddenSize, buffers, clock } = this.#resources;
    clock.enter(Phase.router);
    if (tensorGroup.size === 1) return this.#addInPlace(input);
    clock.enter(Phase.permute);
    const { first, rows } = sliceOf(slices.counts, tensorGroup.rank);
    slices.counts.forEach((count, rank) => (this.#floatCounts[rank] = count * hiddenSize));
    const [source, target] =
      slices.order === undefined ? [input.attention, buffers.shuffled] : [buffers.shuffled, input.attention];
    if (slices.order !== undefined) {
      this.#resources.integers.set(slices.order, buffers.order / 4);
      kernels.gatherRows(input.attention, buffers.order, buffers.shuffled, input.tokens, hiddenSize);
    }
    const request = tensorGroup.startReduceScatter(
      this.#floats(source, input.tokens),
      this.#floatCounts,
      this.#floats(target, rows),
      'attention',
    );
    yield reduceScatter(request, 'attention', tensorGroup.rank, this.#floatCounts);
    clock.enter(Phase.router);
    if (slices.order === undefined)
      kernels.copy(input.hidden + first * hiddenSize * 4, buffers.residual, rows * hiddenSize * 4);
    else kernels.gatherRows(input.hidden, buffers.order + first * 4, buffers.residual, rows, hiddenSize);
    kernels.addRows(buffers.residual, target, rows * hiddenSize);
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
    const request = tensorGroup.startAllReduce(floats, 'attention');
    yield { request, purpose: 'attention', sent: moved, received: moved };
    clock.enter(Phase.router);
    const offset = first * hiddenSize * 4;
    kernels.copy(input.hidden + offset, buffers.residual, rows * hiddenSize * 4);
    kernels.addRows(buffers.residual, input.attention + offset, rows * hiddenSize);
    return buffers.residual;
  }

  /** All-gather (undoing the shuffle): residual slices of all ranks -> hidden [T, H]. */
  *allGather(input: LayerInput, slices: TokenSlices): LayerSteps {
    const { kernels, tensorGroup, hiddenSize, buffers, bytes, clock } = this.#resources;
    if (tensorGroup.size === 1) return;
    const rowBytes = hiddenSize * 4;
    slices.counts.forEach((count, rank) => (this.#byteCounts[rank] = count * rowBytes));
    const target = slices.order === undefined ? input.hidden : buffers.shuffled;
    const sent = this.#byteCounts[tensorGroup.rank]!;
    const request = tensorGroup.startAllGather(
      bytes.subarray(buffers.residual, buffers.residual + sent),
      bytes.subarray(target, target + input.tokens * rowBytes),
      this.#byteCounts,
      'attention',
    );
    yield allGather(request, 'attention', tensorGroup.rank, this.#byteCounts);
    clock.enter(Phase.permute);
    if (slices.order !== undefined) kernels.scatterRows(target, buffers.order, input.hidden, input.tokens, hiddenSize);
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

/** First token (in shard order) and number of tokens of a rank. */
export function sliceOf(counts: Int32Array, rank: number): { first: number; rows: number } {
  let first = 0;
  for (let before = 0; before < rank; before++) first += counts[before]!;
  return { first, rows: counts[rank]! };
}
