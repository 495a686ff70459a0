import { Phase } from '../timeline/phases.ts';
import { AttentionExchange } from './attention-exchange.ts';
import { allToAll } from './collective.ts';
import { ExpertWork } from './expert-work.ts';
import { sumTree } from './partial-sums.ts';
import type { LayerInput, LayerSteps, MoeSchedule, ScheduleResources } from './schedule.ts';
import { ContiguousSlices, sliceOf } from './token-slices.ts';

/**
 * One row per (token, expert): all-reduce of attention outputs, dispatch, unweighted expert outputs come back and are
 * weighted and summed at home, all-gather (docs/method.md, schedules).
 *
 * - `alltoallv` (DeepSpeed AutoEP): real splits.
 * - `deepspeed-moe` (DeepSpeed's MOELayer): every expert's block is padded to the capacity C, the largest number of rows any
 *   rank has for any expert, so that splits are equal and no token is dropped. Padding is sent, never computed.
 */
export class ExpertRowSchedule implements MoeSchedule {
  readonly name: string;
  readonly #resources: ScheduleResources;
  readonly #padded: boolean;
  readonly #slices: ContiguousSlices;
  readonly #attention: AttentionExchange;
  readonly #work: ExpertWork;
  readonly #serving: Int32Array;
  /** Blocks per rank: the most experts any rank owns. */
  readonly #blocks: number;
  /** [N] position of each expert among its owner's, for the current layer. */
  readonly #blockOf: Int32Array;
  /** [G * blocks] rows per block sent and received; [G * blocks] first row of each block. */
  readonly #rowsTo: Int32Array;
  readonly #rowsFrom: Int32Array;
  readonly #sendRow: Int32Array;
  readonly #receiveRow: Int32Array;
  readonly #placed: Int32Array;
  /** [N] rows this rank's tokens have for each expert. */
  readonly #load: Int32Array;
  readonly #sendBytes: Int32Array;
  readonly #sendAt: Int32Array;
  readonly #receiveBytes: Int32Array;
  readonly #receiveAt: Int32Array;
  readonly #sizeBytes: Int32Array;
  readonly #sizeAt: Int32Array;

  constructor(name: string, resources: ScheduleResources, padded: boolean) {
    const ranks = resources.world.size;
    const blocks = resources.ownership.largestOwned();
    this.name = name;
    this.#resources = resources;
    this.#padded = padded;
    this.#slices = new ContiguousSlices(resources.tensorGroup.size);
    this.#attention = new AttentionExchange(resources);
    this.#work = new ExpertWork(resources);
    this.#serving = new Int32Array(resources.topK);
    this.#blocks = blocks;
    this.#blockOf = new Int32Array(resources.ownership.experts);
    this.#rowsTo = new Int32Array(ranks * blocks);
    this.#rowsFrom = new Int32Array(ranks * blocks);
    this.#sendRow = new Int32Array(ranks * blocks);
    this.#receiveRow = new Int32Array(ranks * blocks);
    this.#placed = new Int32Array(ranks * blocks);
    this.#load = new Int32Array(resources.ownership.experts);
    this.#sendBytes = new Int32Array(ranks);
    this.#sendAt = new Int32Array(ranks);
    this.#receiveBytes = new Int32Array(ranks);
    this.#receiveAt = new Int32Array(ranks);
    this.#sizeBytes = new Int32Array(ranks).fill(blocks * 4);
    this.#sizeAt = Int32Array.from({ length: ranks }, (_, rank) => rank * blocks * 4);
  }

  attentionOrder(): undefined {}

  *layer(input: LayerInput): LayerSteps {
    const { kernels, experts, observer, tensorGroup, hiddenSize, buffers, integers, floats, clock } = this.#resources;
    const { layer } = input;
    const slices = this.#slices.choose(layer, input);
    const { first, rows } = sliceOf(slices.counts, tensorGroup.rank);
    const residual = yield* this.#attention.allReduce(input, slices);
    experts.normalizeAndRoute(layer, residual, rows, buffers.input, buffers.expertIds, buffers.expertWeights);
    const recordRows = (): Int32Array => input.recordRows.subarray(first, first + rows);
    observer.observe(layer, rows, integers, buffers.expertIds / 4, floats, buffers.expertWeights / 4, recordRows);

    clock.enter(Phase.pack);
    this.#countOwnRows(layer, rows);
    yield* this.#exchangeSizes();
    this.#layOutSegments(rows);
    yield* this.#dispatch(layer, rows);
    clock.enter(Phase.pack);
    this.#compute(layer, rows);
    yield* this.#combine(layer, rows);
    clock.enter(Phase.combine);
    sumTree(kernels, buffers.homePartials, this.#resources.ownership.devices, rows * hiddenSize * 4, rows * hiddenSize);
    kernels.addRows(residual, buffers.homePartials, rows * hiddenSize);
    yield* this.#attention.allGather(input, slices, this.#slices);
  }

  /** 1. Rows per (rank, expert block). */
  #countOwnRows(layer: number, rows: number): void {
    const { world, ownership } = this.#resources;
    for (const owned of ownership.ownedExperts[layer]!)
      owned.forEach((expert, block) => (this.#blockOf[expert] = block));
    this.#rowsTo.fill(0);
    this.#load.fill(0);
    this.#work.begin();
    this.#forEachOwnPair(layer, rows, (_row, expert, rank) => {
      this.#load[expert]!++;
      if (rank === world.rank) this.#work.countOwn(expert);
      else this.#rowsTo[rank * this.#blocks + this.#blockOf[expert]!]!++;
    });
  }

  #forEachOwnPair(
    layer: number,
    rows: number,
    visit: (row: number, expert: number, rank: number, weight: number) => void,
  ): void {
    const { world, ownership, topK, buffers, integers, floats } = this.#resources;
    const ids = buffers.expertIds / 4;
    const weights = buffers.expertWeights / 4;
    for (let row = 0; row < rows; row++) {
      ownership.servingRanks(layer, world.rank, integers, ids + row * topK, topK, this.#serving);
      for (let i = 0; i < topK; i++) {
        const entry = row * topK + i;
        visit(row, integers[ids + entry]!, this.#serving[i]!, floats[weights + entry]!);
      }
    }
  }

  /** 2. Block sizes to the experts' owners. */
  *#exchangeSizes(): LayerSteps {
    const { world, buffers, bytes, integers, clock } = this.#resources;
    if (world.size === 1) return;
    integers.set(this.#rowsTo, buffers.sizesSent / 4);
    const length = this.#rowsTo.length * 4;
    const request = world.startAllToAll(
      bytes.subarray(buffers.sizesSent, buffers.sizesSent + length),
      this.#sizeBytes,
      this.#sizeAt,
      bytes.subarray(buffers.sizesReceived, buffers.sizesReceived + length),
      this.#sizeBytes,
      this.#sizeAt,
      'control',
    );
    yield allToAll(request, 'control', world.rank, this.#sizeBytes, this.#sizeBytes);
    clock.enter(Phase.pack);
    this.#rowsFrom.set(integers.subarray(buffers.sizesReceived / 4, buffers.sizesReceived / 4 + this.#rowsFrom.length));
  }

  /** 3. Where every block lies: rows relative to `buffers.send` and to `buffers.input` (behind the own rows). */
  #layOutSegments(rows: number): void {
    const { world, hiddenSize, buffers, integers, clock } = this.#resources;
    let capacity = 0;
    if (this.#padded && world.size > 1) {
      const at = buffers.sizesSent / 4;
      integers[at] = this.#load.reduce((most, load) => Math.max(most, load), 0);
      clock.waiting('control', () => world.allReduceMaximum(integers.subarray(at, at + 1), 'control'));
      capacity = integers[at]!;
    }
    let sendRow = 0;
    let receiveRow = rows;
    for (let rank = 0; rank < world.size; rank++) {
      const remote = rank !== world.rank;
      this.#sendAt[rank] = sendRow * hiddenSize * 4;
      this.#receiveAt[rank] = receiveRow * hiddenSize * 4;
      for (let block = rank * this.#blocks; block < (rank + 1) * this.#blocks; block++) {
        this.#sendRow[block] = sendRow;
        this.#receiveRow[block] = receiveRow;
        sendRow += this.#padded ? (remote ? capacity : 0) : this.#rowsTo[block]!;
        receiveRow += this.#padded ? (remote ? capacity : 0) : this.#rowsFrom[block]!;
      }
      this.#sendBytes[rank] = sendRow * hiddenSize * 4 - this.#sendAt[rank]!;
      this.#receiveBytes[rank] = receiveRow * hiddenSize * 4 - this.#receiveAt[rank]!;
    }
  }

  /** 4. Gathers and sends one row per remote pair; remembers each sent row's token and weight by send position. */
  *#dispatch(layer: number, rows: number): LayerSteps {
    const { world, kernels, hiddenSize, buffers, bytes, integers, floats } = this.#resources;
    if (world.size === 1) return;
    this.#placed.fill(0);
    const tokens = buffers.rowLists / 4;
    const weights = buffers.weightLists / 4;
    this.#forEachOwnPair(layer, rows, (row, expert, rank, weight) => {
      if (rank === world.rank) return;
      const block = rank * this.#blocks + this.#blockOf[expert]!;
      const entry = this.#sendRow[block]! + this.#placed[block]!++;
      integers[tokens + entry] = row;
      floats[weights + entry] = weight;
    });
    for (let block = 0; block < this.#rowsTo.length; block++) {
      const count = this.#rowsTo[block]!;
      if (count === 0) continue;
      const first = this.#sendRow[block]!;
      kernels.gatherRows(buffers.input, (tokens + first) * 4, buffers.send + first * hiddenSize * 4, count, hiddenSize);
    }
    const last = world.size - 1;
    const request = world.startAllToAll(
      bytes.subarray(buffers.send, buffers.send + this.#sendAt[last]! + this.#sendBytes[last]!),
      this.#sendBytes,
      this.#sendAt,
      bytes.subarray(buffers.input, buffers.input + this.#receiveAt[last]! + this.#receiveBytes[last]!),
      this.#receiveBytes,
      this.#receiveAt,
      'dispatch',
    );
    yield allToAll(request, 'dispatch', world.rank, this.#sendBytes, this.#receiveBytes);
  }

  /** 5. Runs the experts; guests' outputs go back to the position their row came in at. */
  #compute(layer: number, rows: number): void {
    const { world, kernels, ownership, hiddenSize, buffers, clock } = this.#resources;
    const work = this.#work;
    const owned = ownership.ownedExperts[layer]![world.rank]!;
    for (let rank = 0; rank < world.size; rank++) {
      owned.forEach((expert, block) => work.countGuests(expert, this.#rowsFrom[rank * this.#blocks + block]!));
    }
    work.layOut();
    this.#forEachOwnPair(layer, rows, (row, expert, rank, weight) => {
      if (rank === world.rank) work.place(expert, row, row, weight);
    });
    for (let rank = 0; rank < world.size; rank++) {
      owned.forEach((expert, index) => {
        const block = rank * this.#blocks + index;
        const first = this.#receiveRow[block]!;
        for (let i = 0; i < this.#rowsFrom[block]!; i++) work.place(expert, first + i, first + i - rows, 1);
      });
    }
    kernels.fillZero(buffers.homePartials, ownership.devices * rows * hiddenSize * 4);
    clock.enter(Phase.experts);
    work.run(layer, rows, (_expert, output, targets, _weights, count) => {
      kernels.scatterRows(output, targets, buffers.returned, count, hiddenSize);
    });
  }

  /** 6. Outputs return along the dispatch's way; weighted at home, ascending expert id within a device. */
  *#combine(layer: number, rows: number): LayerSteps {
    const { world, kernels, ownership, hiddenSize, buffers, bytes, clock } = this.#resources;
    if (world.size === 1) return;
    const rowBytes = hiddenSize * 4;
    const last = world.size - 1;
    const ownBytes = rows * rowBytes;
    for (let rank = 0; rank < world.size; rank++) this.#receiveAt[rank]! -= ownBytes;
    const request = world.startAllToAll(
      bytes.subarray(buffers.returned, buffers.returned + this.#receiveAt[last]! + this.#receiveBytes[last]!),
      this.#receiveBytes,
      this.#receiveAt,
      bytes.subarray(buffers.result, buffers.result + this.#sendAt[last]! + this.#sendBytes[last]!),
      this.#sendBytes,
      this.#sendAt,
      'combine',
    );
    yield allToAll(request, 'combine', world.rank, this.#receiveBytes, this.#sendBytes);
    clock.enter(Phase.combine);
    for (let rank = 0; rank < world.size; rank++) {
      ownership.ownedExperts[layer]![rank]!.forEach((expert, index) => {
        const block = rank * this.#blocks + index;
        const count = this.#rowsTo[block]!;
        if (count === 0) return;
        const first = this.#sendRow[block]!;
        const partial = buffers.homePartials + ownership.device(layer, expert) * rows * rowBytes;
        const [tokens, weights] = [buffers.rowLists + first * 4, buffers.weightLists + first * 4];
        kernels.scatterAddWeighted(buffers.result + first * rowBytes, tokens, weights, partial, count, hiddenSize);
      });
    }
  }
}
