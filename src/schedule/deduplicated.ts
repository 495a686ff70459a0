import { Phase } from '../timeline/phases.ts';
import { AttentionExchange, roundUp } from './attention-exchange.ts';
import { allToAll } from './collective.ts';
import { ExpertWork } from './expert-work.ts';
import { sumTree } from './partial-sums.ts';
import type { LayerInput, LayerSteps, MoeSchedule, ScheduleResources } from './schedule.ts';
import { sliceOf, type SliceChooser, type TokenSlices } from './token-slices.ts';

/** Bytes of a dispatched row's routing: one uint16 count per row; per (row, expert) pair a f32 weight and a uint16 id. */
const routingBytesPerRow = 2;
const routingBytesPerPair = 6;
/** The number of rows, as two halves. */
const segmentEndBytes = 4;

/** Bytes dispatched from one rank to another. */
export function segmentBytes(rows: number, pairs: number, rowBytes: number): number {
  return rows === 0 ? 0 : rows * (rowBytes + routingBytesPerRow) + pairs * routingBytesPerPair + segmentEndBytes;
}

/**
 * One row per (token, rank): reduce-scatter, dispatch each row once to every remote rank that owns some of its experts,
 * weighted partial sums come back, all-gather (docs/method.md, schedules). With slices by index this is `dedup` (SGLang
 * with DeepEP); with predicted slices it is `speculative`: the reduce-scatter and all-gather are shuffled (SRS, SAG).
 *
 * Segment to a rank: rows [n, H] f32 | weights [pairs] f32 | expert ids [pairs] uint16 | experts per row [n] uint16 | n. It says
 * itself how long it is, and every source has a place of its own to arrive at, so no sizes go ahead.
 */
export class DeduplicatedSchedule implements MoeSchedule {
  readonly name: string;
  readonly #resources: ScheduleResources;
  readonly #slices: SliceChooser;
  readonly #attention: AttentionExchange;
  readonly #work: ExpertWork;
  readonly #halves: Uint16Array;
  readonly #serving: Int32Array;
  /** Per rank: rows and pairs sent and received, and where segments lie. */
  readonly #rowsTo: Int32Array;
  readonly #pairsTo: Int32Array;
  readonly #rowsFrom: Int32Array;
  readonly #pairsFrom: Int32Array;
  readonly #sendBytes: Int32Array;
  readonly #sendAt: Int32Array;
  readonly #receiveBytes: Int32Array;
  readonly #receiveAt: Int32Array;
  /** Where each rank's segment arrives, whole rows from `buffers.input`, and the most bytes it can have. */
  readonly #arrivesAt: Int32Array;
  readonly #mostBytes: Int32Array;
  #chosen: TokenSlices;

  constructor(name: string, resources: ScheduleResources, slices: SliceChooser) {
    const ranks = resources.world.size;
    this.name = name;
    this.#resources = resources;
    this.#slices = slices;
    this.#attention = new AttentionExchange(resources);
    this.#work = new ExpertWork(resources);
    this.#chosen = { order: undefined, counts: new Int32Array(resources.tensorGroup.size) };
    this.#halves = new Uint16Array(resources.bytes.buffer);
    this.#serving = new Int32Array(resources.topK);
    this.#rowsTo = new Int32Array(ranks);
    this.#pairsTo = new Int32Array(ranks);
    this.#rowsFrom = new Int32Array(ranks);
    this.#pairsFrom = new Int32Array(ranks);
    this.#sendBytes = new Int32Array(ranks);
    this.#sendAt = new Int32Array(ranks);
    this.#receiveBytes = new Int32Array(ranks);
    this.#receiveAt = new Int32Array(ranks);
    const { world, hiddenSize, topK, buffers } = resources;
    const rowBytes = hiddenSize * 4;
    const slice = buffers.rowListEntries;
    const most = segmentBytes(slice, slice * topK, rowBytes);
    this.#mostBytes = new Int32Array(ranks).fill(most);
    this.#mostBytes[world.rank] = 0;
    // Own rows come first.
    let end = slice * rowBytes;
    this.#arrivesAt = this.#mostBytes.map((bytes) => {
      const start = end;
      end = roundUp(start + bytes, rowBytes);
      return start;
    });
  }

  attentionOrder(input: LayerInput): number | undefined {
    const { integers, buffers } = this.#resources;
    this.#chosen = this.#slices.choose(input.layer, input);
    if (this.#chosen.order === undefined) return undefined;
    integers.set(this.#chosen.order, buffers.order / 4);
    return buffers.order;
  }

  *layer(input: LayerInput): LayerSteps {
    const { kernels, experts, observer, tensorGroup, hiddenSize, buffers, integers, floats, clock } = this.#resources;
    const { layer } = input;
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
    yield* this.#dispatch(layer);
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
    this.#rowsTo.fill(0);
    this.#pairsTo.fill(0);
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
        const list = (buffers.rowLists + rank * buffers.rowListEntries * 4) / 4;
        const sent = this.#rowsTo[rank]!;
        if (sent === 0 || integers[list + sent - 1] !== row) {
          integers[list + sent] = row;
          this.#rowsTo[rank] = sent + 1;
        }
        this.#pairsTo[rank]!++;
      }
    }
  }

  /** 2. Packs and sends one segment per remote rank. */
  *#dispatch(layer: number): LayerSteps {
    const { world, kernels, hiddenSize, buffers, bytes, clock } = this.#resources;
    if (world.size === 1) return;
    const rowBytes = hiddenSize * 4;
    let sendEnd = 0;
    for (let rank = 0; rank < world.size; rank++) {
      this.#sendAt[rank] = sendEnd;
      this.#sendBytes[rank] = segmentBytes(this.#rowsTo[rank]!, this.#pairsTo[rank]!, rowBytes);
      sendEnd = roundUp(sendEnd + this.#sendBytes[rank]!, 4);
      const count = this.#rowsTo[rank]!;
      if (count === 0) continue;
      const list = buffers.rowLists + rank * buffers.rowListEntries * 4;
      kernels.gatherRows(buffers.input, list, buffers.send + this.#sendAt[rank]!, count, hiddenSize);
    }
    this.#packRouting(layer);
    const last = world.size - 1;
    const receiveEnd = this.#arrivesAt[last]! + this.#mostBytes[last]!;
    const request = world.startAllToAll(
      bytes.subarray(buffers.send, buffers.send + sendEnd),
      this.#sendBytes,
      this.#sendAt,
      bytes.subarray(buffers.input, buffers.input + receiveEnd),
      this.#mostBytes,
      this.#arrivesAt,
      'dispatch',
      this.#receiveBytes,
    );
    yield allToAll(request, 'dispatch', world.rank, this.#sendBytes, this.#receiveBytes);
    clock.enter(Phase.pack);
    this.#readSegmentEnds();
  }

  /** How many rows and pairs each rank has sent. */
  #readSegmentEnds(): void {
    const { world, hiddenSize, buffers } = this.#resources;
    for (let rank = 0; rank < world.size; rank++) {
      const length = this.#receiveBytes[rank]!;
      const end = (buffers.input + this.#arrivesAt[rank]! + length) / 2;
      const rows = length === 0 ? 0 : this.#halves[end - 2]! + this.#halves[end - 1]! * 0x10000;
      this.#rowsFrom[rank] = rows;
      this.#pairsFrom[rank] = (length - segmentBytes(rows, 0, hiddenSize * 4)) / routingBytesPerPair;
    }
  }

  #packRouting(layer: number): void {
    const { world, ownership, hiddenSize, topK, buffers, integers, floats } = this.#resources;
    const ids = buffers.expertIds / 4;
    const weights = buffers.expertWeights / 4;
    for (let rank = 0; rank < world.size; rank++) {
      const count = this.#rowsTo[rank]!;
      const pairs = this.#pairsTo[rank]!;
      const list = (buffers.rowLists + rank * buffers.rowListEntries * 4) / 4;
      const at = buffers.send + this.#sendAt[rank]! + count * hiddenSize * 4;
      let weightAt = at / 4;
      let idAt = (at + pairs * 4) / 2;
      let countAt = (at + pairs * 6) / 2;
      for (let i = 0; i < count; i++) {
        const entry = integers[list + i]! * topK;
        let here = 0;
        for (let j = 0; j < topK; j++) {
          const expert = integers[ids + entry + j]!;
          if (ownership.ownerRank(layer, expert) !== rank) continue;
          floats[weightAt++] = floats[weights + entry + j]!;
          this.#halves[idAt++] = expert;
          here++;
        }
        this.#halves[countAt++] = here;
      }
      if (count === 0) continue;
      this.#halves[countAt++] = count & 0xffff;
      this.#halves[countAt] = count >>> 16;
    }
  }

  /**
   * 3. Groups all pairs computed here by expert: own rows first, then received rows in rank order.
   *
   * @returns rows received from other ranks
   */
  #placeWork(layer: number, rows: number): number {
    const { world, ownership, topK, buffers, integers, floats } = this.#resources;
    const work = this.#work;
    this.#forEachGuestPair((expert) => work.countGuests(expert, 1));
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
    return this.#forEachGuestPair((expert, inputRow, guest, weight) => work.place(expert, inputRow, guest, weight));
  }

  /** Visits the routing of received segments; `guest` numbers received rows across ranks. Returns their number. */
  #forEachGuestPair(visit: (expert: number, inputRow: number, guest: number, weight: number) => void): number {
    const { world, hiddenSize, buffers, floats } = this.#resources;
    let guest = 0;
    for (let rank = 0; rank < world.size; rank++) {
      const count = this.#rowsFrom[rank]!;
      const pairs = this.#pairsFrom[rank]!;
      const firstRow = this.#arrivesAt[rank]! / (hiddenSize * 4);
      const at = buffers.input + this.#arrivesAt[rank]! + count * hiddenSize * 4;
      let weightAt = at / 4;
      let idAt = (at + pairs * 4) / 2;
      const countAt = (at + pairs * 6) / 2;
      for (let i = 0; i < count; i++, guest++) {
        for (let j = this.#halves[countAt + i]!; j > 0; j--)
          visit(this.#halves[idAt++]!, firstRow + i, guest, floats[weightAt++]!);
      }
    }
    return guest;
  }

  /** 4. Runs the experts; guests' weighted partial sums end up in the first block of `guestPartials`, one row each. */
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

  /** 5. One row per guest goes back; own rows' sums end up in the first block of `homePartials`. */
  *#combine(rows: number): LayerSteps {
    const { world, kernels, ownership, hiddenSize, buffers, bytes, clock } = this.#resources;
    const rowBytes = hiddenSize * 4;
    clock.enter(Phase.pack);
    if (world.size > 1) {
      let sendEnd = 0;
      let receiveEnd = 0;
      for (let rank = 0; rank < world.size; rank++) {
        this.#sendAt[rank] = sendEnd;
        this.#sendBytes[rank] = this.#rowsFrom[rank]! * rowBytes;
        sendEnd += this.#sendBytes[rank]!;
        this.#receiveAt[rank] = receiveEnd;
        this.#receiveBytes[rank] = this.#rowsTo[rank]! * rowBytes;
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
        const count = this.#rowsTo[rank]!;
        if (count === 0) continue;
        const list = buffers.rowLists + rank * buffers.rowListEntries * 4;
        const partial = buffers.homePartials + rank * ownership.devicesPerRank * rows * rowBytes;
        kernels.scatterRows(buffers.result + this.#receiveAt[rank]!, list, partial, count, hiddenSize);
      }
    }
    clock.enter(Phase.combine);
    sumTree(kernels, buffers.homePartials, ownership.devices, rows * rowBytes, rows * hiddenSize);
  }
}
