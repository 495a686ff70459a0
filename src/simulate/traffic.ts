import { shardLength } from '../comm/shards.ts';
import { type Layout, type ScheduleName, scheduleNames } from '../engine/api.ts';
import { roundUp } from '../schedule/alignment.ts';
import { segmentBytes } from '../schedule/dispatch-segments.ts';
import type { Ownership } from '../schedule/ownership.ts';
import { Exchange, type LayerExchangeName, layerExchangeNames } from './exchange.ts';
import type { LayerRouting } from './layer-routing.ts';

/** The engine's schedules, and what engines do whose exchange hands every row to every rank (docs/simulator.md). */
export type SimulatedScheduleName = ScheduleName | 'gather-all';
export const simulatedScheduleNames: readonly SimulatedScheduleName[] = [...scheduleNames, 'gather-all'];

type LayerExchanges = Record<LayerExchangeName, Exchange>;

/**
 * Exactly what the ranks of a run hand to each other, layer by layer, from routing and homes alone: the bytes and messages that
 * the Communicator of a real run counts (test/simulate/counters.test.ts holds the two together).
 */
export class Traffic {
  readonly ranks: number;
  /** Of the current layer. */
  readonly layer: LayerExchanges;
  /** Of the current step. */
  readonly activity: Exchange;
  readonly sampling: Exchange;
  readonly #layout: Layout;
  readonly #schedule: SimulatedScheduleName;
  readonly #rowBytes: number;
  readonly #blocks: number;

  /** @param rowBytes bytes of one token's hidden row */
  constructor(schedule: SimulatedScheduleName, layout: Layout, ownership: Ownership, rowBytes: number) {
    const { ranks } = ownership;
    this.ranks = ranks;
    this.layer = Object.fromEntries(
      layerExchangeNames.map((name) => [name, new Exchange(name, ranks)]),
    ) as LayerExchanges;
    this.activity = new Exchange('activity', ranks);
    this.sampling = new Exchange('sampling', ranks);
    this.#layout = layout;
    this.#schedule = schedule;
    this.#rowBytes = rowBytes;
    this.#blocks = ownership.largestOwned();
  }

  /**
   * What goes around a step besides its layers: groups tell each other whether they are still busy (also once after the last step),
   * and the tensor ranks of a group agree on greedy tokens.
   *
   * @param sampled [dp] rows whose next token is chosen
   */
  countStep(sampled: Int32Array): void {
    const { dataParallel, tensorParallel } = this.#layout;
    this.activity.clear();
    this.sampling.clear();
    if (dataParallel > 1) this.activity.sendToAll(0, this.ranks, () => 4);
    sampled.forEach((rows, group) => {
      this.sampling.sendToAll(group * tensorParallel, (group + 1) * tensorParallel, () => rows * 8);
    });
  }

  /**
   * @param groupTokens [dp] tokens of each data-parallel group
   * @param ridingBytes what every gathered row brings along for the next layer's slices
   * @param oneShot the layer goes one-shot (docs/one-shot.md): one group, all ranks
   */
  countLayer(groupTokens: Int32Array, routing: LayerRouting, ridingBytes: number, oneShot: boolean = false): void {
    for (const name of layerExchangeNames) this.layer[name].clear();
    if (oneShot) return this.#oneShot(groupTokens[0]!, routing);
    groupTokens.forEach((tokens, group) => {
      this.#attention(tokens, group * this.#layout.tensorParallel, routing.homeRows, ridingBytes);
    });
    if (this.ranks > 1) this.#experts(routing);
  }

  /** Partial rows of attention and partial sums of experts, each from every rank to all others. */
  #oneShot(tokens: number, routing: LayerRouting): void {
    const rowBytes = this.#rowBytes;
    this.layer.attentionSum.sendToAll(0, this.ranks, () => tokens * rowBytes);
    this.layer.combine.sendToAll(0, this.ranks, (source) => routing.servedRows(source) * rowBytes);
  }

  /** Attention outputs become residual slices, and at the layer's end slices become all rows again. */
  #attention(tokens: number, first: number, homeRows: Int32Array, ridingBytes: number): void {
    const { tensorParallel } = this.#layout;
    if (tensorParallel === 1) return;
    const end = first + tensorParallel;
    const sum = this.layer.attentionSum;
    if (this.#schedule === 'deepspeed-moe' || this.#schedule === 'alltoallv') {
      const shard = (rank: number): number => {
        const elements = (tokens * this.#rowBytes) / 4;
        return shardLength(elements, tensorParallel, rank - first) * 4;
      };
      sum.rounds = 2;
      sum.sendToAll(first, end, (_source, destination) => shard(destination));
      sum.sendToAll(first, end, (source) => shard(source));
    } else sum.sendToAll(first, end, (_source, destination) => homeRows[destination]! * this.#rowBytes);
    this.layer.attentionGather.sendToAll(first, end, (source) => {
      const rows = homeRows[source]!;
      return rows * this.#rowBytes + roundUp(rows * ridingBytes, 4);
    });
  }

  #experts(routing: LayerRouting): void {
    const { sizes, capacity, dispatch, combine } = this.layer;
    const { ranks } = this;
    const rowBytes = this.#rowBytes;
    const both = (bytesOf: (source: number, destination: number) => number): void => {
      dispatch.sendToAll(0, ranks, bytesOf);
      combine.sendToAll(0, ranks, (source, destination) => bytesOf(destination, source));
    };
    switch (this.#schedule) {
      case 'deepspeed-moe':
        sizes.sendToAll(0, ranks, () => this.#blocks * 4);
        capacity.sendToAll(0, ranks, () => 4);
        both(() => this.#blocks * routing.capacity * rowBytes);
        return;
      case 'alltoallv':
        sizes.sendToAll(0, ranks, () => this.#blocks * 4);
        both((source, destination) => routing.pairs[source * ranks + destination]! * rowBytes);
        return;
      case 'gather-all':
        both((source) => routing.homeRows[source]! * rowBytes);
        return;
      default:
        dispatch.sendToAll(0, ranks, (source, destination) => {
          const rows = routing.rows[source * ranks + destination]!;
          const pairs = routing.pairs[source * ranks + destination]!;
          return segmentBytes(rows, pairs, rowBytes);
        });
        combine.sendToAll(0, ranks, (source, destination) => routing.rows[destination * ranks + source]! * rowBytes);
    }
  }
}
