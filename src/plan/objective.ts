import type { RoutingTrace } from '../trace/routing-trace.ts';

/**
 * One layer's hypergraph: vertices are experts, an edge is the expert set of one or more tokens. Equal sets are merged.
 * S = distinct sets, k = experts per set.
 */
export interface ExpertSets {
  experts: number;
  topK: number;
  /** S */
  count: number;
  /** [S][k] ascending expert ids */
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
  const weights = new Int32Array(tokens);
  let slots = 16;
  while (slots < 2 * tokens) slots *= 2;
  /** Open-addressing table of set indices + 1. */
  const table = new Int32Array(slots);
  let count = 0;
  for (let i = 0; i < tokens; i++) {
    const from = ((rows === undefined ? i : rows[i]!) * layers + layer) * topK;
    let hash = 0x811c9dc5;
    for (let j = 0; j < topK; j++) {
      const expert = trace.experts[from + j]!;
      members[count * topK + j] = expert;
      hash = Math.imul(hash ^ expert, 0x01000193);
      hash ^= hash >>> 15;
    }
    let slot = hash & (slots - 1);
    for (;;) {
      const found = table[slot]! - 1;
      if (found < 0) {
        weights[count] = 1;
        table[slot] = ++count;
        break;
      }
      if (sameSet(members, found * topK, count * topK, topK)) {
        weights[found]!++;
        break;
      }
      slot = (slot + 1) & (slots - 1);
    }
  }
  return { experts, topK, count, members: members.slice(0, count * topK), weights: weights.slice(0, count), tokens };
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
    for (let j = 0; j < topK; j++, at++) loads[members[at]!]! += weights[set]!;
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
  owner: Uint16Array,
  devices: number,
): number {
  const stamp = new Int32Array(devices).fill(-1);
  let cost = 0;
  for (let set = 0, at = 0; set < count; set++) {
    let distinct = 0;
    for (let j = 0; j < topK; j++, at++) {
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
