import type { DeviceLayout } from '../device-layout.ts';
import { type ExpertSets, noExpert, setLoads } from '../objective.ts';
import { ConnectivityLevel } from './connectivity-level.ts';

export interface PartitionOptions {
  /** [N] routed pairs the balance bound is checked on; by default those of the sets */
  loads?: Float64Array;
  /** [N] placement to move away from, and what each expert away from it adds to the cost */
  start?: Uint16Array | undefined;
  movePrice?: number;
}

/**
 * A partition of one layer's experts under change, with exact gains of its cost at hand: rows between devices at the inner price,
 * rows between nodes at what they cost above that, and experts moved. Empty places ("ghosts", vertices N and up that are in no set)
 * fill every device to the most experts it may own, so that a move is a swap with a ghost. S = sets, k = experts per set.
 */
export class Partition {
  readonly layout: DeviceLayout;
  /** Experts and ghosts. */
  readonly vertices: number;
  readonly experts: number;
  /** [vertices] */
  readonly owner: Uint16Array;
  /** [vertices] routed pairs; 0 for ghosts */
  readonly loads: Float64Array;
  /** [P] routed pairs / speed */
  readonly deviceLoads: Float64Array;
  cost: number;
  readonly #options: PartitionOptions;
  readonly #levels: ConnectivityLevel[];
  /** [P] ghosts on the device, and the most there may be */
  readonly #ghosts: Int32Array;
  readonly #mostGhosts: Int32Array;
  /** Sets of expert v: #incident[#starts[v] .. #starts[v + 1]). */
  readonly #starts: Int32Array;
  readonly #incident: Int32Array;
  /** Sets of experts a < b: #shared[#pairStarts[a * N + b] .. + 1). */
  readonly #pairStarts: Int32Array;
  readonly #shared: Int32Array;

  constructor(sets: ExpertSets, layout: DeviceLayout, owner: Uint16Array, options: PartitionOptions = {}) {
    const { experts, members } = sets;
    const { devices, nodeOf, innerPrice, outerPrice } = layout;
    this.layout = layout;
    this.experts = experts;
    this.vertices = layout.most.reduce((sum, most) => sum + most, 0);
    this.owner = new Uint16Array(this.vertices);
    this.loads = new Float64Array(this.vertices);
    this.loads.set(options.loads ?? setLoads(sets));
    this.deviceLoads = new Float64Array(devices);
    this.cost = 0;
    this.#options = options;
    this.#levels = [];
    const deviceOf = new Uint16Array(devices).map((_, device) => device);
    if (innerPrice > 0) this.#levels.push(new ConnectivityLevel(sets, this.vertices, deviceOf, innerPrice));
    if (layout.nodes > 1 && outerPrice > innerPrice)
      this.#levels.push(new ConnectivityLevel(sets, this.vertices, nodeOf, outerPrice - innerPrice));
    this.#ghosts = new Int32Array(devices);
    this.#mostGhosts = layout.most.map((most, device) => most - layout.fewest[device]!);
    this.#starts = new Int32Array(this.vertices + 1);
    this.#pairStarts = new Int32Array(experts * experts + 1);
    const { incident, shared } = this.#indexSets(sets, members);
    this.#incident = incident;
    this.#shared = shared;
    this.reset(owner);
  }

  /** Fills the lists of sets per expert and per pair of experts, by counting sort. */
  #indexSets({ experts, topK, count }: ExpertSets, members: Uint16Array): { incident: Int32Array; shared: Int32Array } {
    const sizeOf = (set: number): number => {
      let size = topK;
      while (size > 0 && members[set * topK + size - 1] === noExpert) size--;
      return size;
    };
    const eachMember = (visit: (member: number, set: number) => void): void => {
      for (let set = 0; set < count; set++) {
        for (let i = set * topK, end = i + sizeOf(set); i < end; i++) visit(members[i]!, set);
      }
    };
    const eachPair = (visit: (pair: number, set: number) => void): void => {
      for (let set = 0; set < count; set++) {
        for (let i = set * topK, end = i + sizeOf(set); i < end; i++) {
          for (let j = i + 1; j < end; j++) visit(members[i]! * experts + members[j]!, set);
        }
      }
    };
    const bySlot = (
      starts: Int32Array,
      slots: number,
      each: (visit: (slot: number, set: number) => void) => void,
    ): Int32Array => {
      each((slot) => starts[slot + 1]!++);
      for (let slot = 0; slot < slots; slot++) starts[slot + 1]! += starts[slot]!;
      const next = starts.slice();
      const list = new Int32Array(starts[slots]!);
      each((slot, set) => {
        list[next[slot]!++] = set;
      });
      return list;
    };
    return {
      incident: bySlot(this.#starts, this.vertices, eachMember),
      shared: bySlot(this.#pairStarts, experts * experts, eachPair),
    };
  }

  /** Starts over from a placement [N] that keeps the layout's sizes. */
  reset(owner: Uint16Array): void {
    const { experts, layout } = this;
    const room = layout.most.slice();
    this.deviceLoads.fill(0);
    this.cost = 0;
    for (let expert = 0; expert < experts; expert++) {
      const device = owner[expert]!;
      this.owner[expert] = device;
      this.deviceLoads[device]! += this.loads[expert]! / layout.speeds[device]!;
      this.cost += this.#priceOf(expert, device);
      room[device]!--;
    }
    let ghost = experts;
    for (let device = 0; device < layout.devices; device++) {
      this.#ghosts[device] = room[device]!;
      for (let i = 0; i < room[device]!; i++) this.owner[ghost++] = device;
    }
    for (const level of this.#levels) this.cost += level.price * level.recount(this.owner);
  }

  /** What it costs to have the expert on the device when it started elsewhere. */
  #priceOf(vertex: number, device: number): number {
    const { start, movePrice = 0 } = this.#options;
    return start === undefined || vertex >= this.experts || start[vertex] === device ? 0 : movePrice;
  }

  /** [N] the placement as it stands, as a copy. */
  placement(): Uint16Array {
    return this.owner.slice(0, this.experts);
  }

  largestLoad(): number {
    let largest = 0;
    for (const load of this.deviceLoads) largest = load > largest ? load : largest;
    return largest;
  }

  /** Whether the two vertices are on different devices and trading places keeps the layout's sizes. */
  canSwap(first: number, second: number): boolean {
    const from = this.owner[first]!;
    const to = this.owner[second]!;
    if (from === to) return false;
    if (first < this.experts) return second < this.experts || this.#ghosts[from]! < this.#mostGhosts[from]!;
    return second < this.experts && this.#ghosts[to]! < this.#mostGhosts[to]!;
  }

  /** The larger of the two devices' loads after the swap. */
  loadAfterSwap(first: number, second: number): number {
    const { speeds } = this.layout;
    const shift = this.loads[second]! - this.loads[first]!;
    const from = this.owner[first]!;
    const to = this.owner[second]!;
    const loadFrom = this.deviceLoads[from]! + shift / speeds[from]!;
    const loadTo = this.deviceLoads[to]! - shift / speeds[to]!;
    return loadFrom > loadTo ? loadFrom : loadTo;
  }

  /** Exact change of cost if two vertices of different devices traded places. */
  swapDelta(first: number, second: number): number {
    const { experts } = this;
    const from = this.owner[first]!;
    const to = this.owner[second]!;
    let start = 0;
    let end = 0;
    if (first < experts && second < experts) {
      const pair = first < second ? first * experts + second : second * experts + first;
      start = this.#pairStarts[pair]!;
      end = this.#pairStarts[pair + 1]!;
    }
    let delta = 0;
    for (let i = 0; i < this.#levels.length; i++) {
      const level = this.#levels[i]!;
      const groupFrom = level.groupOf[from]!;
      const groupTo = level.groupOf[to]!;
      if (groupFrom !== groupTo)
        delta += level.price * level.swapDelta(first, second, groupFrom, groupTo, this.#shared, start, end);
    }
    if (this.#options.start === undefined) return delta;
    return (
      delta +
      this.#priceOf(first, to) -
      this.#priceOf(first, from) +
      this.#priceOf(second, from) -
      this.#priceOf(second, to)
    );
  }

  /** @param delta what `swapDelta` said */
  swap(first: number, second: number, delta: number): void {
    const from = this.owner[first]!;
    const to = this.owner[second]!;
    this.#move(first, from, to);
    this.#move(second, to, from);
    this.cost += delta;
    if (first >= this.experts || second >= this.experts) {
      const ghostFrom = first >= this.experts ? from : to;
      this.#ghosts[ghostFrom]!--;
      this.#ghosts[ghostFrom === from ? to : from]!++;
    }
  }

  #move(vertex: number, from: number, to: number): void {
    const { speeds } = this.layout;
    const start = this.#starts[vertex]!;
    const end = this.#starts[vertex + 1]!;
    for (const level of this.#levels) {
      const groupFrom = level.groupOf[from]!;
      const groupTo = level.groupOf[to]!;
      if (groupFrom !== groupTo) level.move(vertex, groupFrom, groupTo, this.owner, this.#incident, start, end);
    }
    this.owner[vertex] = to;
    this.deviceLoads[from]! -= this.loads[vertex]! / speeds[from]!;
    this.deviceLoads[to]! += this.loads[vertex]! / speeds[to]!;
  }
}
