import { Phase } from '../timeline/phases.ts';
import { AttentionExchange } from './attention-exchange.ts';
import { allToAll } from './collective.ts';
import { RowSegments, longestSegment } from './row-segments.ts';
import { DispatchSegments } from './dispatch-segments.ts';
import { ExpertWork } from './expert-work.ts';
import { OneShotLayer } from './one-shot.ts';
import { sumTree } from './partial-sums.ts';
import { type LayerInput, type LayerSteps, type MoeSchedule, rowList, type ScheduleResources } from './schedule.ts';
import { sliceOf, type SliceChooser, type TokenSlices } from './token-slices.ts';

/**
 * One row per (token, rank): reduce-scatter, dispatch each row once to every remote rank that owns some of its experts,
 * weighted partial sums come back, all-gather (docs/method.md, schedules). With slices by index this is `dedup` (SGLang
 * with DeepEP); with predicted slices it is `speculative`: the reduce-scatter and all-gather are shuffled (SRS, SAG).
 * Steps of few tokens can go one-shot instead.
 */
export class DeduplicatedSchedule implements MoeSchedule {
  readonly name: string;
  readonly #resources: ScheduleResources;
  readonly #slices: SliceChooser;
  readonly #attention: AttentionExchange;
  readonly #segments: DispatchSegments;
  readonly #work: ExpertWork;
  readonly #oneShot: OneShotLayer;
  readonly #serving: Int32Array;
  /** Of partial sums on their way back; compact ones have segments instead. */
  readonly #sendBytes: Int32Array;
  readonly #sendAt: Int32Array;
  readonly #receiveBytes: Int32Array;
  readonly #receiveAt: Int32Array;
  readonly #compactSums: RowSegments | undefined;
  #chosen: TokenSlices;

  constructor(name: string, resources: ScheduleResources, slices: SliceChooser) {
    const ranks = resources.world.size;
    this.name = name;
    this.#resources = resources;
    this.#slices = slices;
    this.#attention = new AttentionExchange(resources);
    this.#segments = new DispatchSegments(resources);
    this.#work = new ExpertWork(resources);
    this.#oneShot = new OneShotLayer(resources, this.#attention, this.#work);
    this.#chosen = { order: undefined, counts: new Int32Array(resources.tensorGroup.size) };
    this.#serving = new Int32Array(resources.topK);
    this.#sendBytes = new Int32Array(ranks);
    this.#sendAt = new Int32Array(ranks);
    this.#receiveBytes = new Int32Array(ranks);
    this.#receiveAt = new Int32Array(ranks);
    this.#compactSums = resources.compactRows ? new RowSegments(resources, resources.world, true) : undefined;
  }

  attentionOrder(input: LayerInput): number | undefined {
    const { integers, buffers } = this.#resources;
    if (input.oneShot) return undefined;
    this.#chosen = this.#slices.choose(input.layer, input);
    if (this.#chosen.order === undefined) return undefined;
    integers.set(this.#chosen.order, buffers.order / 4);
    return buffers.order;
  }

  *layer(input: LayerInput): LayerSteps {
    const { kernels, experts, observer, tensorGroup, hiddenSize, buffers, integers, floats, clock } = this.#resources;
    const { layer } = input;
    if (input.oneShot) return yield* this.#oneShot.run(input);
    const slices = this.#chosen;
    const { first, rows } = sliceOf(slices.counts, tensorGroup.rank);
    const residual = yield* this.#attention.reduceScatter(input, slices);
    experts.normalizeAndRoute(layer, residual, rows, buffers.input, buffers.expertIds, buffers.expertWeights);
    const recordRows = (): Int32Array =>
      slices.order === undefined
        ? input.recordRows.subarray(first, first + rows)
        : slices.order.subarray(first, first + rows).map((token) => input.recordRows[token]!);
    observer.observe(layer, rows, integers, buffers.expertIds / 4, floats, buffers.expertWeights / 4, recordRows);

    clock.enter(Phase.pack);
    this.#routeOwnRows(layer, rows);
    yield* this.#segments.exchange(layer);
    const guests = this.#placeWork(layer, rows);
    clock.enter(Phase.experts);
    this.#compute(layer, rows, guests);
    yield* this.#combine(rows);
    kernels.addRows(residual, buffers.homePartials, rows * hiddenSize);
    yield* this.#attention.allGather(input, slices, this.#slices);
  }

  /** 1. Which ranks each own row goes to: row lists, and the count of own pairs. */
  #routeOwnRows(layer: number, rows: number): void {
    const { world, ownership, topK, buffers, integers } = this.#resources;
    const { rowsTo, pairsTo } = this.#segments;
    this.#segments.clear();
    this.#work.begin();
    const ids = buffers.expertIds / 4;
    for (let row = 0; row < rows; row++) {
      ownership.servingRanks(layer, world.rank, integers, ids + row * topK, topK, this.#serving);
      for (let i = 0; i < topK; i++) {
        const rank = this.#serving[i]!;
        if (rank === world.rank) {
          this.#work.countOwn(integers[ids + row * topK + i]!);
          continue;
        }
        const list = rowList(buffers, rank) / 4;
        const sent = rowsTo[rank]!;
        if (sent === 0 || integers[list + sent - 1] !== row) {
          integers[list + sent] = row;
          rowsTo[rank] = sent + 1;
        }
        pairsTo[rank]!++;
      }
    }
  }

  /**
   * 2. Groups all pairs computed here by expert: own rows first, then received rows in rank order.
   *
   * @returns rows received from other ranks
   */
  #placeWork(layer: number, rows: number): number {
    const { world, ownership, topK, buffers, integers, floats } = this.#resources;
    const work = this.#work;
    this.#segments.forEachPair((expert) => work.countGuests(expert, 1));
    work.layOut();
    const ids = buffers.expertIds / 4;
    const weights = buffers.expertWeights / 4;
    for (let row = 0; row < rows; row++) {
      ownership.servingRanks(layer, world.rank, integers, ids + row * topK, topK, this.#serving);
      for (let i = 0; i < topK; i++) {
        const entry = row * topK + i;
        if (this.#serving[i] === world.rank) work.place(integers[ids + entry]!, row, row, floats[weights + entry]!);
      }
    }
    return this.#segments.forEachPair((expert, inputRow, guest, weight) => work.place(expert, inputRow, guest, weight));
  }

  /** 3. Runs the experts; guests' weighted partial sums end up in the first block of `guestPartials`, one row each. */
  #compute(layer: number, rows: number, guests: number): void {
    const { world, kernels, ownership, hiddenSize, buffers } = this.#resources;
    const rowBytes = hiddenSize * 4;
    const firstDevice = world.rank * ownership.devicesPerRank;
    kernels.fillZero(buffers.homePartials, ownership.devices * rows * rowBytes);
    kernels.fillZero(buffers.guestPartials, ownership.devicesPerRank * guests * rowBytes);
    this.#work.run(layer, rows, (expert, output, targets, weights, count) => {
      const block = ownership.device(layer, expert) - firstDevice;
      const partial = buffers.guestPartials + block * guests * rowBytes;
      kernels.scatterAddWeighted(output, targets, weights, partial, count, hiddenSize);
    });
    sumTree(kernels, buffers.guestPartials, ownership.devicesPerRank, guests * rowBytes, guests * hiddenSize);
  }

  /** 4. One row per guest goes back; own rows' sums end up in the first block of `homePartials`. */
  *#combine(rows: number): LayerSteps {
    const { world, kernels, ownership, hiddenSize, buffers, clock } = this.#resources;
    clock.enter(Phase.pack);
    if (world.size > 1) yield* this.#compactSums === undefined ? this.#sendSums(rows) : this.#sendCompactSums(rows);
    clock.enter(Phase.combine);
    const rowBytes = hiddenSize * 4;
    sumTree(kernels, buffers.homePartials, ownership.devices, rows * rowBytes, rows * hiddenSize);
  }

  *#sendSums(rows: number): LayerSteps {
    const { world, kernels, hiddenSize, buffers, bytes, clock } = this.#resources;
    const { rowsFrom, rowsTo } = this.#segments;
    const rowBytes = hiddenSize * 4;
    let sendEnd = 0;
    let receiveEnd = 0;
    for (let rank = 0; rank < world.size; rank++) {
      this.#sendAt[rank] = sendEnd;
      this.#sendBytes[rank] = rowsFrom[rank]! * rowBytes;
      sendEnd += this.#sendBytes[rank]!;
      this.#receiveAt[rank] = receiveEnd;
      this.#receiveBytes[rank] = rowsTo[rank]! * rowBytes;
      receiveEnd += this.#receiveBytes[rank]!;
    }
    const request = world.startAllToAll(
      bytes.subarray(buffers.guestPartials, buffers.guestPartials + sendEnd),
      this.#sendBytes,
      this.#sendAt,
      bytes.subarray(buffers.result, buffers.result + receiveEnd),
      this.#receiveBytes,
      this.#receiveAt,
      'combine',
    );
    yield allToAll(request, 'combine', world.rank, this.#sendBytes, this.#receiveBytes);
    clock.enter(Phase.combine);
    for (let rank = 0; rank < world.size; rank++) {
      const count = rowsTo[rank]!;
      if (count === 0) continue;
      const { index, target } = this.#homePartialsOf(rank, rows);
      kernels.scatterRows(buffers.result + this.#receiveAt[rank]!, index, target, count, hiddenSize);
    }
  }

  *#sendCompactSums(rows: number): LayerSteps {
    const { world, hiddenSize, buffers, clock } = this.#resources;
    const { rowsFrom, rowsTo } = this.#segments;
    const segments = this.#compactSums!;
    segments.begin(buffers.send, buffers.result);
    let guest = 0;
    for (let rank = 0; rank < world.size; rank++) {
      if (rank === world.rank) continue;
      segments.open(rank);
      segments.addRows(buffers.guestPartials + guest * hiddenSize * 4, undefined, rowsFrom[rank]!);
      guest += rowsFrom[rank]!;
      segments.expect(rank, longestSegment(rowsTo[rank]!, hiddenSize));
    }
    yield segments.start('combine');
    clock.enter(Phase.combine);
    for (let rank = 0; rank < world.size; rank++) {
      if (rank === world.rank) continue;
      const { index, target } = this.#homePartialsOf(rank, rows);
      segments.takeRows(rank, 0, 0, index, target, rowsTo[rank]!);
    }
  }

  /** Own rows that a rank adds to, and the block it adds to. */
  #homePartialsOf(rank: number, rows: number): { index: number; target: number } {
    const { ownership, hiddenSize, buffers } = this.#resources;
    return {
      index: rowList(buffers, rank),
      target: buffers.homePartials + rank * ownership.devicesPerRank * rows * hiddenSize * 4,
    };
  }
}
