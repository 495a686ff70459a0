import { Phase } from '../timeline/phases.ts';
import type { AttentionExchange } from './attention-exchange.ts';
import type { ExpertWork } from './expert-work.ts';
import { sumTree } from './partial-sums.ts';
import { RowSegments, longestSegment } from './row-segments.ts';
import { type LayerInput, type LayerSteps, rowList, type ScheduleResources } from './schedule.ts';
import { sliceOf, sliceSizes } from './token-slices.ts';

/**
 * A layer of a step of few tokens, in two exchanges instead of four: attention's partial rows go to all ranks, which all route all tokens
 * and compute what their experts add to them; and those partial sums go to all ranks again. Nobody waits for a dispatch, an all-gather, or
 * for sizes; more bytes travel, as every row goes everywhere (docs/one-shot.md). For one data-parallel group only: then every rank has
 * every row. Sums are those of the other schedules, bit for bit; copies of experts are not used.
 */
export class OneShotLayer {
  readonly #resources: ScheduleResources;
  readonly #attention: AttentionExchange;
  readonly #work: ExpertWork;
  readonly #segments: RowSegments;
  /** [G] rows of the step that need each rank's experts, listed in `buffers.rowLists`. */
  readonly #rowsOf: Int32Array;
  readonly #sliceSizes: Int32Array;

  constructor(resources: ScheduleResources, attention: AttentionExchange, work: ExpertWork) {
    const { world, compactRows } = resources;
    this.#resources = resources;
    this.#attention = attention;
    this.#work = work;
    this.#segments = new RowSegments(resources, world, compactRows);
    this.#rowsOf = new Int32Array(world.size);
    this.#sliceSizes = new Int32Array(world.size);
  }

  *run(input: LayerInput): LayerSteps {
    const { kernels, experts, ownership, hiddenSize, buffers, integers, clock } = this.#resources;
    const { layer, tokens } = input;
    const rowBytes = hiddenSize * 4;
    const residual = yield* this.#attention.oneShot(input);
    experts.normalizeAndRoute(layer, residual, tokens, buffers.input, buffers.expertIds, buffers.expertWeights);
    this.#observe(input);
    clock.enter(Phase.pack);
    this.#listRows(layer, tokens);
    clock.enter(Phase.experts);
    kernels.fillZero(buffers.homePartials, ownership.devices * tokens * rowBytes);
    this.#work.run(layer, tokens, () => {
      throw new Error('rows of other groups in a one-shot layer');
    });
    yield* this.#combine(tokens);
    kernels.addRows(residual, buffers.homePartials, tokens * hiddenSize);
    clock.enter(Phase.other);
    for (let token = 0; token < tokens; token++) integers[input.addresses / 4 + token] = residual + token * rowBytes;
  }

  /** Every token is counted once, by the rank that has it when slices go by index. */
  #observe({ layer, tokens, recordRows }: LayerInput): void {
    const { world, observer, topK, buffers, integers, floats } = this.#resources;
    const { first, rows } = sliceOf(sliceSizes(tokens, world.size, this.#sliceSizes), world.rank);
    const [ids, weights] = [buffers.expertIds / 4 + first * topK, buffers.expertWeights / 4 + first * topK];
    const ownRows = (): Int32Array => recordRows.subarray(first, first + rows);
    observer.observe(layer, rows, integers, ids, floats, weights, ownRows, false);
  }

  /** Which rows every rank's experts add to, and this rank's (row, expert) pairs. */
  #listRows(layer: number, tokens: number): void {
    const { world, ownership, topK, buffers, integers, floats } = this.#resources;
    const work = this.#work;
    const ids = buffers.expertIds / 4;
    const weights = buffers.expertWeights / 4;
    this.#rowsOf.fill(0);
    work.begin();
    for (let row = 0; row < tokens; row++) {
      for (let i = row * topK; i < (row + 1) * topK; i++) {
        const expert = integers[ids + i]!;
        const rank = ownership.ownerRank(layer, expert);
        const list = rowList(buffers, rank) / 4;
        const listed = this.#rowsOf[rank]!;
        if (listed === 0 || integers[list + listed - 1] !== row) {
          integers[list + listed] = row;
          this.#rowsOf[rank] = listed + 1;
        }
        if (rank === world.rank) work.countOwn(expert);
      }
    }
    work.layOut();
    for (let entry = 0; entry < tokens * topK; entry++) {
      const expert = integers[ids + entry]!;
      if (ownership.ownerRank(layer, expert) !== world.rank) continue;
      const row = Math.floor(entry / topK);
      work.place(expert, row, row, floats[weights + entry]!);
    }
  }

  /** Every rank's partial sums to all others; all sums end up in the first block of `homePartials`. */
  *#combine(tokens: number): LayerSteps {
    const { world, kernels, ownership, hiddenSize, buffers, clock } = this.#resources;
    const segments = this.#segments;
    const blockBytes = tokens * hiddenSize * 4;
    const rankBytes = ownership.devicesPerRank * blockBytes;
    clock.enter(Phase.pack);
    const own = buffers.homePartials + world.rank * rankBytes;
    sumTree(kernels, own, ownership.devicesPerRank, blockBytes, tokens * hiddenSize);
    segments.begin(buffers.send, buffers.result);
    segments.openForAll();
    segments.addRows(own, rowList(buffers, world.rank), this.#rowsOf[world.rank]!);
    segments.repeatForAll();
    for (let rank = 0; rank < world.size; rank++)
      if (rank !== world.rank) segments.expect(rank, longestSegment(this.#rowsOf[rank]!, hiddenSize));
    yield segments.start('combine');
    clock.enter(Phase.combine);
    for (let rank = 0; rank < world.size; rank++) {
      if (rank === world.rank) continue;
      segments.takeRows(
        rank,
        0,
        0,
        rowList(buffers, rank),
        buffers.homePartials + rank * rankBytes,
        this.#rowsOf[rank]!,
      );
    }
    sumTree(kernels, buffers.homePartials, world.size, rankBytes, tokens * hiddenSize);
  }
}
