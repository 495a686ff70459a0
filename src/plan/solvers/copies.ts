import type { DeviceLayout } from '../device-layout.ts';
import { type ExpertSets, noExpert } from '../objective.ts';

/** Members of a set are bits of a 32-bit mask. */
export const mostMembers = 31;

/**
 * One layer's placement with copies under change, with exact gains. A copy on device d serves only tokens whose home is d; a remote
 * device is spared only when every expert it owns that the token needs has a copy at home. A token's home is its best device, so the
 * cost of a set is the least over homes. S = sets, k = experts per set, P = devices.
 */
export class Copies {
  readonly layout: DeviceLayout;
  readonly sets: ExpertSets;
  /** [N] */
  readonly owner: Uint16Array;
  /** [P][N] 1 where the device holds a copy */
  readonly held: Uint8Array;
  /** Sum over tokens at the layout's prices. */
  cost: number;
  /** Sets of expert v and its bit there: #incident[#starts[v] .. #starts[v + 1]). */
  readonly #starts: Int32Array;
  readonly #incident: Int32Array;
  readonly #bits: Int32Array;
  /** [S][k] devices that own members of the set, and the members they own; [S] how many */
  readonly #groupDevice: Uint16Array;
  readonly #groupMask: Int32Array;
  readonly #groupCount: Uint8Array;
  /** [S][P] members with a copy on the device */
  readonly #covered: Int32Array;
  /** [S][P] cost of the set with that home */
  readonly #homeCost: Float64Array;
  /** [S] least of `#homeCost` */
  readonly #leastCost: Float64Array;
  /** [nodes] last `#visit` a node was seen in */
  readonly #nodeSeen: Int32Array;
  #visit: number = 0;

  constructor(sets: ExpertSets, layout: DeviceLayout, owner: Uint16Array) {
    const { experts, topK, count } = sets;
    const { devices } = layout;
    this.layout = layout;
    this.sets = sets;
    this.owner = owner.slice();
    this.held = new Uint8Array(devices * experts);
    this.cost = 0;
    this.#starts = new Int32Array(experts + 1);
    this.#groupDevice = new Uint16Array(count * topK);
    this.#groupMask = new Int32Array(count * topK);
    this.#groupCount = new Uint8Array(count);
    this.#covered = new Int32Array(count * devices);
    this.#homeCost = new Float64Array(count * devices);
    this.#leastCost = new Float64Array(count);
    this.#nodeSeen = new Int32Array(layout.nodes);
    const members = sets.members.filter((member) => member !== noExpert).length;
    this.#incident = new Int32Array(members);
    this.#bits = new Int32Array(members);
    this.#indexSets();
    for (let set = 0; set < count; set++) this.cost += sets.weights[set]! * this.#recount(set);
  }

  #indexSets(): void {
    const { topK, count, members } = this.sets;
    for (const member of members) {
      if (member !== noExpert) this.#starts[member + 1]!++;
    }
    for (let expert = 0; expert + 1 < this.#starts.length; expert++) this.#starts[expert + 1]! += this.#starts[expert]!;
    const next = this.#starts.slice();
    for (let set = 0; set < count; set++) {
      for (let j = 0; j < topK && members[set * topK + j] !== noExpert; j++) {
        const at = next[members[set * topK + j]!]!++;
        this.#incident[at] = set;
        this.#bits[at] = 1 << j;
      }
    }
  }

  /** Groups, coverage and costs of a set from scratch; returns its least cost. */
  #recount(set: number): number {
    const { owner, held } = this;
    const { experts, topK, members } = this.sets;
    const { devices } = this.layout;
    const base = set * topK;
    let groups = 0;
    for (let j = 0; j < topK && members[base + j] !== noExpert; j++) {
      const device = owner[members[base + j]!]!;
      let group = 0;
      while (group < groups && this.#groupDevice[base + group] !== device) group++;
      if (group === groups) {
        this.#groupDevice[base + group] = device;
        this.#groupMask[base + group] = 0;
        groups++;
      }
      this.#groupMask[base + group]! |= 1 << j;
    }
    this.#groupCount[set] = groups;
    let least = Number.POSITIVE_INFINITY;
    for (let home = 0; home < devices; home++) {
      let covered = 0;
      for (let j = 0; j < topK && members[base + j] !== noExpert; j++) {
        if (held[home * experts + members[base + j]!] === 1) covered |= 1 << j;
      }
      this.#covered[set * devices + home] = covered;
      const cost = this.#costAt(set, home, covered);
      this.#homeCost[set * devices + home] = cost;
      if (cost < least) least = cost;
    }
    this.#leastCost[set] = least;
    return least;
  }

  /** Cost of a set with that home, if these of its members had copies there. */
  #costAt(set: number, home: number, covered: number): number {
    const { nodes, nodeOf, innerPrice, outerPrice } = this.layout;
    const base = set * this.sets.topK;
    const end = base + this.#groupCount[set]!;
    let remote = 0;
    let remoteNodes = 0;
    const visit = ++this.#visit;
    if (nodes > 1) this.#nodeSeen[nodeOf[home]!] = visit;
    for (let group = base; group < end; group++) {
      const device = this.#groupDevice[group]!;
      if (device === home || (this.#groupMask[group]! & ~covered) === 0) continue;
      remote++;
      if (nodes > 1 && this.#nodeSeen[nodeOf[device]!] !== visit) {
        this.#nodeSeen[nodeOf[device]!] = visit;
        remoteNodes++;
      }
    }
    return innerPrice * remote + (outerPrice - innerPrice) * remoteNodes;
  }

  /**
   * Exact change of cost of one more copy on a device, for every expert at once; 0 for those it owns or holds. `hope`, when above 0,
   * also credits copies that cover a remote device's experts only in part, so that pairs of copies which pay together are found.
   *
   * @param deltas [N] filled
   */
  addDeltas(home: number, deltas: Float64Array, hope: number = 0): void {
    const { topK, count, members, weights } = this.sets;
    const { devices } = this.layout;
    deltas.fill(0);
    for (let set = 0; set < count; set++) {
      const base = set * topK;
      const covered = this.#covered[set * devices + home]!;
      const least = this.#leastCost[set]!;
      const slack = this.#homeCost[set * devices + home]! - least;
      // A copy saves at most one device (and its node) for this home.
      if (hope === 0 && slack >= this.layout.outerPrice) continue;
      for (let group = base, end = base + this.#groupCount[set]!; group < end; group++) {
        if (this.#groupDevice[group] === home) continue;
        const open = this.#groupMask[group]! & ~covered;
        if (open === 0) continue;
        if ((open & (open - 1)) === 0) {
          const saved = least - this.#costAt(set, home, covered | open);
          if (saved > 0) deltas[members[base + 31 - Math.clz32(open)]!]! -= weights[set]! * saved;
        }
        if (hope > 0) {
          let missing = 0;
          for (let bits = open; bits !== 0; bits &= bits - 1) missing++;
          if (missing === 1 && slack === 0) continue;
          const credit = (hope * weights[set]! * this.layout.innerPrice) / (missing * missing * (1 + slack));
          for (let bits = open; bits !== 0; bits &= bits - 1)
            deltas[members[base + 31 - Math.clz32(bits & -bits)]!]! -= credit;
        }
      }
    }
  }

  /** Gives the device a copy; returns the change of cost. */
  add(expert: number, home: number): number {
    return this.#set(expert, home, 1);
  }

  remove(expert: number, home: number): number {
    return this.#set(expert, home, 0);
  }

  #set(expert: number, home: number, present: 0 | 1): number {
    const { weights } = this.sets;
    const { devices } = this.layout;
    this.held[home * this.sets.experts + expert] = present;
    let delta = 0;
    for (let at = this.#starts[expert]!, end = this.#starts[expert + 1]!; at < end; at++) {
      const set = this.#incident[at]!;
      const cell = set * devices + home;
      const bit = this.#bits[at]!;
      this.#covered[cell] = present === 1 ? this.#covered[cell]! | bit : this.#covered[cell]! & ~bit;
      const before = this.#homeCost[cell]!;
      const cost = this.#costAt(set, home, this.#covered[cell]!);
      if (cost === before) continue;
      this.#homeCost[cell] = cost;
      const leastBefore = this.#leastCost[set]!;
      let least = cost;
      if (cost > before && before === leastBefore) {
        for (let other = set * devices; other < (set + 1) * devices; other++) {
          if (this.#homeCost[other]! < least) least = this.#homeCost[other]!;
        }
      } else least = cost < leastBefore ? cost : leastBefore;
      this.#leastCost[set] = least;
      delta += weights[set]! * (least - leastBefore);
    }
    this.cost += delta;
    return delta;
  }

  /**
   * [P] routed pairs / speed that devices serve when every token is at its best home: the cheapest, then the one that serves most of
   * its experts, then the lower device.
   */
  servedLoads(): Float64Array {
    const { count, topK, weights } = this.sets;
    const { devices, speeds } = this.layout;
    const loads = new Float64Array(devices);
    for (let set = 0; set < count; set++) {
      let home = -1;
      let mostLocal = -1;
      for (let candidate = 0; candidate < devices; candidate++) {
        if (this.#homeCost[set * devices + candidate] !== this.#leastCost[set]) continue;
        if (home < 0 && candidate === devices - 1) {
          home = candidate;
          break;
        }
        const local = this.#localPairs(set, candidate);
        if (local > mostLocal) {
          mostLocal = local;
          home = candidate;
        }
      }
      const covered = this.#covered[set * devices + home]!;
      for (let group = set * topK, end = group + this.#groupCount[set]!; group < end; group++) {
        const device = this.#groupDevice[group]!;
        const server = (this.#groupMask[group]! & ~covered) === 0 ? home : device;
        loads[server]! += (weights[set]! * bitCount(this.#groupMask[group]!)) / speeds[server]!;
      }
    }
    return loads;
  }

  /** Members of the set served by that home. */
  #localPairs(set: number, home: number): number {
    const covered = this.#covered[set * this.layout.devices + home]!;
    const base = set * this.sets.topK;
    let pairs = 0;
    for (let group = base, end = base + this.#groupCount[set]!; group < end; group++) {
      const mask = this.#groupMask[group]!;
      if (this.#groupDevice[group] === home || (mask & ~covered) === 0) pairs += bitCount(mask);
    }
    return pairs;
  }

  /** [P] copies per device, ascending. */
  lists(): number[][] {
    const { experts } = this.sets;
    return Array.from({ length: this.layout.devices }, (_, device) =>
      Array.from({ length: experts }, (_, expert) => expert).filter(
        (expert) => this.held[device * experts + expert] === 1,
      ),
    );
  }
}

function bitCount(mask: number): number {
  let count = 0;
  for (let bits = mask; bits !== 0; bits &= bits - 1) count++;
  return count;
}
