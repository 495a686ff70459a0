import { type ExpertSets, setLoads } from '../objective.ts';

/**
 * A partition of one layer's experts under change, with exact gains of the lambda - 1 cost at hand. Where P does not divide N,
 * fewer than P empty places ("ghosts", vertices N and up that are in no set) fill the devices, at most one each, so that a move
 * is a swap with a ghost and device sizes differ by at most one.
 *
 * Gains: #alone[v] = weight of the sets in which v is the only member on its device (saved when v leaves), #absent[v][d] = weight
 * of v's sets without a member on d (paid when v goes to d). Both are kept up to date, so that a swap is judged from four numbers
 * and the few sets that hold both experts. S = sets, k = experts per set.
 */
export class Partition {
  readonly devices: number;
  /** Experts and ghosts. */
  readonly vertices: number;
  readonly experts: number;
  /** [vertices] */
  readonly owner: Uint16Array;
  /** [vertices] routed pairs; 0 for ghosts */
  readonly loads: Float64Array;
  /** [P] */
  readonly deviceLoads: Float64Array;
  cost: number;
  readonly #sets: ExpertSets;
  /** [P] ghosts on the device, 0 or 1 */
  readonly #ghosts: Uint8Array;
  /** Sets of expert v: #incident[#starts[v] .. #starts[v + 1]). */
  readonly #starts: Int32Array;
  readonly #incident: Int32Array;
  /** Sets of experts a < b: #shared[#pairStarts[a * N + b] .. + 1). */
  readonly #pairStarts: Int32Array;
  readonly #shared: Int32Array;
  /** [S][P] members of the set on the device */
  readonly #counts: Uint8Array;
  /** [vertices] */
  readonly #alone: Float64Array;
  /** [vertices][P] */
  readonly #absent: Float64Array;

  /** @param loads [N] routed pairs the balance bound is checked on; by default those of `sets` */
  constructor(sets: ExpertSets, devices: number, owner: Uint16Array, loads: Float64Array = setLoads(sets)) {
    const { experts, topK, count, members } = sets;
    this.devices = devices;
    this.experts = experts;
    this.vertices = Math.ceil(experts / devices) * devices;
    this.owner = new Uint16Array(this.vertices);
    this.loads = new Float64Array(this.vertices);
    this.loads.set(loads);
    this.deviceLoads = new Float64Array(devices);
    this.cost = 0;
    this.#sets = sets;
    this.#ghosts = new Uint8Array(devices);
    this.#starts = new Int32Array(this.vertices + 1);
    this.#incident = new Int32Array(members.length);
    this.#pairStarts = new Int32Array(experts * experts + 1);
    this.#shared = new Int32Array((count * topK * (topK - 1)) / 2);
    this.#counts = new Uint8Array(count * devices);
    this.#alone = new Float64Array(this.vertices);
    this.#absent = new Float64Array(this.vertices * devices);
    this.#indexSets();
    this.reset(owner);
  }

  /** Fills the lists of sets per expert and per pair of experts, by counting sort. */
  #indexSets(): void {
    const { experts, topK, count, members } = this.#sets;
    for (let at = 0; at < members.length; at++) this.#starts[members[at]! + 1]!++;
    for (let vertex = 0; vertex < this.vertices; vertex++) this.#starts[vertex + 1]! += this.#starts[vertex]!;
    const nextIncident = this.#starts.slice();
    for (let set = 0, at = 0; set < count; set++) {
      for (let j = 0; j < topK; j++, at++) this.#incident[nextIncident[members[at]!]!++] = set;
    }
    const eachPair = (visit: (pair: number, set: number) => void): void => {
      for (let set = 0; set < count; set++) {
        for (let i = set * topK; i < (set + 1) * topK; i++) {
          for (let j = i + 1; j < (set + 1) * topK; j++) visit(members[i]! * experts + members[j]!, set);
        }
      }
    };
    eachPair((pair) => this.#pairStarts[pair + 1]!++);
    for (let pair = 0; pair < experts * experts; pair++) this.#pairStarts[pair + 1]! += this.#pairStarts[pair]!;
    const nextPair = this.#pairStarts.slice();
    eachPair((pair, set) => {
      this.#shared[nextPair[pair]!++] = set;
    });
  }

  /** Starts over from a placement [N] of near-equal device sizes. */
  reset(owner: Uint16Array): void {
    const { devices, experts } = this;
    const room = new Int32Array(devices).fill(this.vertices / devices);
    this.deviceLoads.fill(0);
    for (let expert = 0; expert < experts; expert++) {
      const device = owner[expert]!;
      this.owner[expert] = device;
      this.deviceLoads[device]! += this.loads[expert]!;
      room[device]!--;
    }
    let ghost = experts;
    for (let device = 0; device < devices; device++) {
      this.#ghosts[device] = room[device]!;
      if (room[device] === 1) this.owner[ghost++] = device;
    }
    this.#recount();
  }

  /** Counts, cost and gains from scratch. */
  #recount(): void {
    const { devices, owner } = this;
    const { topK, count, members, weights } = this.#sets;
    this.#counts.fill(0);
    this.#alone.fill(0);
    this.#absent.fill(0);
    this.cost = 0;
    for (let set = 0; set < count; set++) {
      const base = set * devices;
      const from = set * topK;
      const weight = weights[set]!;
      let distinct = 0;
      for (let j = 0; j < topK; j++) {
        if (this.#counts[base + owner[members[from + j]!]!]!++ === 0) distinct++;
      }
      this.cost += weight * (distinct - 1);
      for (let j = 0; j < topK; j++) {
        const member = members[from + j]!;
        if (this.#counts[base + owner[member]!] === 1) this.#alone[member]! += weight;
        for (let device = 0; device < devices; device++) {
          if (this.#counts[base + device] === 0) this.#absent[member * devices + device]! += weight;
        }
      }
    }
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

  /** Whether the two vertices are on different devices and trading places keeps device sizes within one of each other. */
  canSwap(first: number, second: number): boolean {
    const from = this.owner[first]!;
    const to = this.owner[second]!;
    if (from === to) return false;
    if (first < this.experts) return second < this.experts || this.#ghosts[from] === 0;
    return second < this.experts && this.#ghosts[to] === 0;
  }

  /** The larger of the two devices' loads after the swap. */
  loadAfterSwap(first: number, second: number): number {
    const shift = this.loads[second]! - this.loads[first]!;
    const from = this.deviceLoads[this.owner[first]!]! + shift;
    const to = this.deviceLoads[this.owner[second]!]! - shift;
    return from > to ? from : to;
  }

  /** Exact change of cost if two vertices of different devices traded places. */
  swapDelta(first: number, second: number): number {
    const { devices, experts } = this;
    const from = this.owner[first]!;
    const to = this.owner[second]!;
    const apart =
      this.#absent[first * devices + to]! -
      this.#alone[first]! +
      this.#absent[second * devices + from]! -
      this.#alone[second]!;
    if (first >= experts || second >= experts) return apart;
    // A set that holds both keeps its devices: take back what `apart` credits for it.
    const pair = first < second ? first * experts + second : second * experts + first;
    const counts = this.#counts;
    const shared = this.#shared;
    const weights = this.#sets.weights;
    let together = 0;
    for (let at = this.#pairStarts[pair]!, end = this.#pairStarts[pair + 1]!; at < end; at++) {
      const set = shared[at]!;
      const base = set * devices;
      if (counts[base + from] === 1) together += weights[set]!;
      if (counts[base + to] === 1) together += weights[set]!;
    }
    return apart + together;
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
    const { devices } = this;
    const counts = this.#counts;
    const incident = this.#incident;
    const weights = this.#sets.weights;
    for (let at = this.#starts[vertex]!, end = this.#starts[vertex + 1]!; at < end; at++) {
      const set = incident[at]!;
      const base = set * devices;
      const weight = weights[set]!;
      const left = --counts[base + from]!;
      if (left === 0) {
        this.#alone[vertex]! -= weight;
        this.#addAbsent(set, from, weight);
      } else if (left === 1) this.#addAlone(set, from, vertex, weight);
      const joined = ++counts[base + to]!;
      if (joined === 1) {
        this.#alone[vertex]! += weight;
        this.#addAbsent(set, to, -weight);
      } else if (joined === 2) this.#addAlone(set, to, vertex, -weight);
    }
    this.owner[vertex] = to;
    this.deviceLoads[from]! -= this.loads[vertex]!;
    this.deviceLoads[to]! += this.loads[vertex]!;
  }

  /** The set gained or lost its presence on the device. */
  #addAbsent(set: number, device: number, weight: number): void {
    const { topK, members } = this.#sets;
    const absent = this.#absent;
    for (let at = set * topK, end = at + topK; at < end; at++) absent[members[at]! * this.devices + device]! += weight;
  }

  /** The set's one member on the device, other than `vertex`, came to be alone there or ceased to be. */
  #addAlone(set: number, device: number, vertex: number, weight: number): void {
    const { topK, members } = this.#sets;
    for (let at = set * topK, end = at + topK; at < end; at++) {
      const member = members[at]!;
      if (this.owner[member] === device && member !== vertex) {
        this.#alone[member]! += weight;
        return;
      }
    }
  }
}
