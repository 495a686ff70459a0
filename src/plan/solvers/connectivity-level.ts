import { type ExpertSets, noExpert } from '../objective.ts';

/**
 * The lambda - 1 cost of one level of the cluster, devices or nodes ("groups" here), with exact gains at hand.
 *
 * #alone[v] = weight of the sets in which v is the only member in its group (saved when v leaves), #absent[v][g] = weight of v's sets
 * without a member in g (paid when v goes to g). Both are kept up to date, so that a swap is judged from four numbers and the few
 * sets that hold both experts. S = sets, k = experts per set.
 */
export class ConnectivityLevel {
  /** Price of one more group per token. */
  readonly price: number;
  /** [P] group of each device */
  readonly groupOf: Uint16Array;
  readonly groups: number;
  readonly #sets: ExpertSets;
  /** [S][groups] members of the set in the group */
  readonly #counts: Uint8Array;
  /** [vertices] */
  readonly #alone: Float64Array;
  /** [vertices][groups] */
  readonly #absent: Float64Array;

  constructor(sets: ExpertSets, vertices: number, groupOf: Uint16Array, price: number) {
    this.price = price;
    this.groupOf = groupOf;
    this.groups = groupOf.reduce((most, group) => Math.max(most, group), 0) + 1;
    this.#sets = sets;
    this.#counts = new Uint8Array(sets.count * this.groups);
    this.#alone = new Float64Array(vertices);
    this.#absent = new Float64Array(vertices * this.groups);
  }

  /**
   * Counts and gains from scratch; returns the cost at price 1.
   *
   * @param owner [vertices] device of each vertex
   */
  recount(owner: Uint16Array): number {
    const { groups, groupOf } = this;
    const { topK, count, members, weights } = this.#sets;
    const counts = this.#counts;
    counts.fill(0);
    this.#alone.fill(0);
    this.#absent.fill(0);
    const absent = this.#absent;
    const present = new Uint16Array(topK);
    /** [vertices] weight of all sets of a vertex */
    const total = new Float64Array(this.#alone.length);
    let cost = 0;
    for (let set = 0; set < count; set++) {
      const base = set * groups;
      const from = set * topK;
      const weight = weights[set]!;
      let distinct = 0;
      let size = 0;
      for (; size < topK && members[from + size] !== noExpert; size++) {
        const group = groupOf[owner[members[from + size]!]!]!;
        if (counts[base + group]!++ === 0) present[distinct++] = group;
      }
      cost += weight * (distinct - 1);
      for (let j = 0; j < size; j++) {
        const member = members[from + j]!;
        if (counts[base + groupOf[owner[member]!]!] === 1) this.#alone[member]! += weight;
        total[member]! += weight;
        // Absent from all groups but those present.
        for (let i = 0; i < distinct; i++) absent[member * groups + present[i]!]! -= weight;
      }
    }
    for (let at = 0; at < absent.length; at++) absent[at]! += total[Math.floor(at / groups)]!;
    return cost;
  }

  /**
   * Exact change of the cost at price 1 if two vertices of different groups traded places.
   *
   * @param shared [start .. end) the sets that hold both
   */
  swapDelta(
    first: number,
    second: number,
    from: number,
    to: number,
    shared: Int32Array,
    start: number,
    end: number,
  ): number {
    const { groups } = this;
    const counts = this.#counts;
    const weights = this.#sets.weights;
    let delta =
      this.#absent[first * groups + to]! -
      this.#alone[first]! +
      this.#absent[second * groups + from]! -
      this.#alone[second]!;
    // A set that holds both keeps its groups: take back what the four numbers credit for it.
    for (let at = start; at < end; at++) {
      const set = shared[at]!;
      const base = set * groups;
      if (counts[base + from] === 1) delta += weights[set]!;
      if (counts[base + to] === 1) delta += weights[set]!;
    }
    return delta;
  }

  /**
   * @param owner [vertices] as before the move
   * @param incident [start .. end) the sets of the vertex
   */
  move(
    vertex: number,
    from: number,
    to: number,
    owner: Uint16Array,
    incident: Int32Array,
    start: number,
    end: number,
  ): void {
    const { groups } = this;
    const counts = this.#counts;
    const weights = this.#sets.weights;
    for (let at = start; at < end; at++) {
      const set = incident[at]!;
      const base = set * groups;
      const weight = weights[set]!;
      const left = --counts[base + from]!;
      if (left === 0) {
        this.#alone[vertex]! -= weight;
        this.#addAbsent(set, from, weight);
      } else if (left === 1) this.#addAlone(set, from, vertex, weight, owner);
      const joined = ++counts[base + to]!;
      if (joined === 1) {
        this.#alone[vertex]! += weight;
        this.#addAbsent(set, to, -weight);
      } else if (joined === 2) this.#addAlone(set, to, vertex, -weight, owner);
    }
  }

  /** The set gained or lost its presence in the group. */
  #addAbsent(set: number, group: number, weight: number): void {
    const { topK, members } = this.#sets;
    const absent = this.#absent;
    for (let at = set * topK, end = at + topK; at < end; at++) {
      if (members[at] === noExpert) return;
      absent[members[at]! * this.groups + group]! += weight;
    }
  }

  /** The set's one member in the group, other than `vertex`, came to be alone there or ceased to be. */
  #addAlone(set: number, group: number, vertex: number, weight: number, owner: Uint16Array): void {
    const { topK, members } = this.#sets;
    for (let at = set * topK, end = at + topK; at < end; at++) {
      const member = members[at]!;
      if (member !== vertex && this.groupOf[owner[member]!] === group) {
        this.#alone[member]! += weight;
        return;
      }
    }
  }
}
