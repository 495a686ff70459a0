import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { DeviceLayout } from './device-layout.ts';
import type { SeededRandom } from './seeded-random.ts';

/** Fills up the row of a set with fewer than k members. */
export const noExpert = 0xffff;

/**
 * One layer's hypergraph: vertices are experts, an edge is the expert set of one or more tokens. Equal sets are merged.
 * S = distinct sets, k = experts per set.
 */
export interface ExpertSets {
  experts: number;
  topK: number;
  /** S */
  count: number;
  /** [S][k] ascending expert ids, `noExpert` after the last of a set with fewer */
  members: Uint16Array;
  /** [S] tokens that routed to the set */
  weights: Int32Array;
  /** Sum of `weights`. */
  tokens: number;
}

/** Merges the expert sets of one layer; `rows` limits it to some rows of the trace. */
export function collectExpertSets(trace: RoutingTrace, layer: number, rows?: Int32Array): ExpertSets {
  const { layers, topK, experts } = trace.model;
  const tokens = rows === undefined ? trace.length : rows.length;
  const members = new Uint16Array(tokens * topK);
  for (let i = 0; i < tokens; i++) {
    const from = ((rows === undefined ? i : rows[i]!) * layers + layer) * topK;
    for (let j = 0; j < topK; j++) members[i * topK + j] = trace.experts[from + j]!;
  }
  return mergeEqual(experts, topK, members, undefined);
}

/**
 * Sets of groups of experts: each expert replaced by its group, repeats dropped.
 *
 * @param groupOf [N]
 */
export function contractSets(sets: ExpertSets, groupOf: Uint16Array, groups: number): ExpertSets {
  const { topK, count, members, weights } = sets;
  const contracted = new Uint16Array(count * topK).fill(noExpert);
  const row: number[] = [];
  for (let set = 0; set < count; set++) {
    row.length = 0;
    for (let at = set * topK; at < (set + 1) * topK && members[at] !== noExpert; at++) {
      const group = groupOf[members[at]!]!;
      if (!row.includes(group)) row.push(group);
    }
    row.sort((a, b) => a - b);
    contracted.set(row, set * topK);
  }
  return mergeEqual(groups, topK, contracted, weights);
}

/** @param members [n][k], used up */
function mergeEqual(
  experts: number,
  topK: number,
  members: Uint16Array,
  rowWeights: Int32Array | undefined,
): ExpertSets {
  const rows = members.length / topK;
  const weights = new Int32Array(rows);
  let slots = 16;
  while (slots < 2 * rows) slots *= 2;
  /** Open-addressing table of set indices + 1. */
  const table = new Int32Array(slots);
  let count = 0;
  let tokens = 0;
  for (let row = 0; row < rows; row++) {
    const from = row * topK;
    const weight = rowWeights === undefined ? 1 : rowWeights[row]!;
    tokens += weight;
    let hash = 0x811c9dc5;
    for (let j = 0; j < topK; j++) {
      const expert = members[from + j]!;
      // Sets found so far are packed at the front; the row moves behind them.
      members[count * topK + j] = expert;
      hash = Math.imul(hash ^ expert, 0x01000193);
      hash ^= hash >>> 15;
    }
    let slot = hash & (slots - 1);
    for (;;) {
      const found = table[slot]! - 1;
      if (found < 0) {
        weights[count] = weight;
        table[slot] = ++count;
        break;
      }
      if (sameSet(members, found * topK, count * topK, topK)) {
        weights[found]! += weight;
        break;
      }
      slot = (slot + 1) & (slots - 1);
    }
  }
  return { experts, topK, count, members: members.slice(0, count * topK), weights: weights.slice(0, count), tokens };
}

/** A random part of the distinct sets, as many as hold at most `mostPairs` pairs of experts. */
export function sampleSets(sets: ExpertSets, mostPairs: number, random: SeededRandom): ExpertSets {
  const { experts, topK } = sets;
  const most = Math.max(1, Math.floor(mostPairs / Math.max(1, (topK * (topK - 1)) / 2)));
  if (sets.count <= most) return sets;
  const order = new Int32Array(sets.count).map((_, i) => i);
  random.shuffle(order);
  const members = new Uint16Array(most * topK);
  const weights = new Int32Array(most);
  let tokens = 0;
  for (let i = 0; i < most; i++) {
    const set = order[i]!;
    members.set(sets.members.subarray(set * topK, (set + 1) * topK), i * topK);
    weights[i] = sets.weights[set]!;
    tokens += weights[i]!;
  }
  return { experts, topK, count: most, members, weights, tokens };
}

function sameSet(members: Uint16Array, a: number, b: number, topK: number): boolean {
  for (let j = 0; j < topK; j++) {
    if (members[a + j] !== members[b + j]) return false;
  }
  return true;
}

/** [N] routed pairs per expert. */
export function setLoads({ experts, topK, count, members, weights }: ExpertSets): Float64Array {
  const loads = new Float64Array(experts);
  for (let set = 0, at = 0; set < count; set++) {
    for (let j = 0; j < topK; j++, at++) {
      if (members[at] !== noExpert) loads[members[at]!]! += weights[set]!;
    }
  }
  return loads;
}

/**
 * The connectivity metric, lambda - 1 summed over tokens: distinct owner devices of a token's experts, less one
 * (docs/method.md, what actually costs bytes).
 *
 * @param owner [N]
 */
export function connectivityCost(
  { topK, count, members, weights }: ExpertSets,
  owner: ArrayLike<number>,
  devices: number,
): number {
  const stamp = new Int32Array(devices).fill(-1);
  let cost = 0;
  for (let set = 0, at = 0; set < count; set++) {
    let distinct = 0;
    for (let j = 0; j < topK; j++, at++) {
      if (members[at] === noExpert) continue;
      const device = owner[members[at]!]!;
      if (stamp[device] !== set) {
        stamp[device] = set;
        distinct++;
      }
    }
    cost += weights[set]! * (distinct - 1);
  }
  return cost;
}

/** The same at the prices of a layout: a remote node costs the outer price once, each further device there or at home the inner. */
export function layoutCost(sets: ExpertSets, owner: Uint16Array, layout: DeviceLayout): number {
  const { devices, nodes, nodeOf, innerPrice, outerPrice } = layout;
  const cost = innerPrice * connectivityCost(sets, owner, devices);
  if (nodes === 1) return cost;
  const ownerNode = owner.map((device) => nodeOf[device]!);
  return cost + (outerPrice - innerPrice) * connectivityCost(sets, ownerNode, nodes);
}

/** Largest device load / mean device load. */
export function loadImbalance(loads: Float64Array, owner: Uint16Array, devices: number): number {
  const deviceLoads = new Float64Array(devices);
  let total = 0;
  for (let expert = 0; expert < loads.length; expert++) {
    deviceLoads[owner[expert]!]! += loads[expert]!;
    total += loads[expert]!;
  }
  return total === 0 ? 1 : (Math.max(...deviceLoads) * devices) / total;
}
