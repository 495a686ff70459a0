import { ExitStatus, SmoeError } from '../../errors.ts';
import type { PlacementProblem, PlacementSolver } from '../solver.ts';

/**
 * EPLB, the expert-parallel load balancer published by DeepSeek, from its description: it looks at expert loads only. One layer;
 * N = experts, R = physical experts.
 *
 * Hierarchical where the expert groups divide over the nodes: 1. groups onto nodes, balanced; 2. inside each node, copies for the
 * experts with the most load per copy; 3. physical experts onto the node's devices, balanced. Otherwise the same with one group
 * on one node. Ties go to the lower id.
 *
 * @param weights [N] load of each expert
 * @returns [R] logical expert of each physical one, device after device
 */
export function rebalanceExperts(
  weights: ArrayLike<number>,
  physical: number,
  groups: number,
  nodes: number,
  devices: number,
): Int32Array {
  if (groups % nodes !== 0) return rebalanceExperts(weights, physical, 1, 1, devices);
  const experts = weights.length;
  const groupSize = experts / groups;
  const perNode = experts / nodes;
  // 1. Groups onto nodes: experts in the order of their node, of their place there.
  const groupLoads = new Float64Array(groups);
  for (let expert = 0; expert < experts; expert++) groupLoads[Math.floor(expert / groupSize)]! += weights[expert]!;
  const packed = packBalanced(groupLoads, nodes);
  const logicalAt = new Int32Array(experts);
  for (let expert = 0; expert < experts; expert++) {
    const group = Math.floor(expert / groupSize);
    const place = (packed.pack[group]! * (groups / nodes) + packed.rank[group]!) * groupSize;
    logicalAt[place + (expert % groupSize)] = expert;
  }
  const physicalToLogical = new Int32Array(physical);
  const physicalPerNode = physical / nodes;
  const slots = physical / devices;
  for (let node = 0; node < nodes; node++) {
    // 2. Copies inside the node.
    const local = Float64Array.from({ length: perNode }, (_, i) => weights[logicalAt[node * perNode + i]!]!);
    const { expertOf, copies } = replicate(local, physicalPerNode);
    // 3. Physical experts onto the node's devices.
    const loads = Float64Array.from(expertOf, (i) => local[i]! / copies[i]!);
    const onDevices = packBalanced(loads, devices / nodes);
    expertOf.forEach((i, at) => {
      const place = onDevices.pack[at]! * slots + onDevices.rank[at]!;
      physicalToLogical[node * physicalPerNode + place] = logicalAt[node * perNode + i]!;
    });
  }
  return physicalToLogical;
}

/** Heaviest first onto the lightest pack with room; [n] pack of each item and its rank there. */
function packBalanced(weights: Float64Array, packs: number): { pack: Int32Array; rank: Int32Array } {
  const room = weights.length / packs;
  const pack = new Int32Array(weights.length);
  const rank = new Int32Array(weights.length);
  if (room === 1) return { pack: pack.map((_, i) => i), rank };
  const loads = new Float64Array(packs);
  const sizes = new Int32Array(packs);
  const order = Array.from(weights.keys()).sort((a, b) => weights[b]! - weights[a]! || a - b);
  for (const item of order) {
    let lightest = -1;
    for (let candidate = 0; candidate < packs; candidate++) {
      if (sizes[candidate]! < room && (lightest < 0 || loads[candidate]! < loads[lightest]!)) lightest = candidate;
    }
    pack[item] = lightest;
    rank[item] = sizes[lightest]!++;
    loads[lightest]! += weights[item]!;
  }
  return { pack, rank };
}

/** Every expert once, then one more copy at a time of the expert with the most load per copy. */
function replicate(weights: Float64Array, physical: number): { expertOf: Int32Array; copies: Int32Array } {
  const experts = weights.length;
  const copies = new Int32Array(experts).fill(1);
  const expertOf = new Int32Array(physical).map((_, i) => (i < experts ? i : 0));
  for (let at = experts; at < physical; at++) {
    let heaviest = 0;
    for (let expert = 1; expert < experts; expert++) {
      if (weights[expert]! / copies[expert]! > weights[heaviest]! / copies[heaviest]!) heaviest = expert;
    }
    expertOf[at] = heaviest;
    copies[heaviest]!++;
  }
  return { expertOf, copies };
}

/**
 * Placement by EPLB. Of an expert's physical copies the one on the least filled of its devices owns it, so that every device owns some;
 * the others become copies. Two copies on one device count once.
 */
export const eplbSolver: PlacementSolver = {
  name: 'eplb',
  heeds: ['replicas', 'expert groups'],
  async solve({ trace, devices, layout, replicasPerDevice = 0, expertGroups = 0, onProgress }: PlacementProblem) {
    const { layers, experts, topK } = trace.model;
    const nodes = layout?.nodes ?? 1;
    const physical = experts + devices * replicasPerDevice;
    const groups = Math.max(1, expertGroups);
    if (physical % devices !== 0 || devices % nodes !== 0 || experts % groups !== 0) {
      throw new SmoeError(
        'PLAN_INFEASIBLE',
        `eplb: ${experts} experts in ${groups} groups do not divide over ${devices} devices in ${nodes} nodes`,
        {
          hint: 'this solver needs equal shares; hypergraph does not',
          exitStatus: ExitStatus.noFeasiblePlan,
        },
      );
    }
    const expertOwner = new Uint16Array(layers * experts);
    const replicas: number[][][] = [];
    for (let layer = 0; layer < layers; layer++) {
      const loads = new Float64Array(experts);
      for (let row = 0; row < trace.length; row++) {
        const from = (row * layers + layer) * topK;
        for (let i = 0; i < topK; i++) loads[trace.experts[from + i]!]!++;
      }
      const slots = rebalanceExperts(loads, physical, groups, nodes, devices);
      const { owner, copies } = ownersAndCopies(slots, experts, devices);
      expertOwner.set(owner, layer * experts);
      replicas.push(copies);
      onProgress?.(layer + 1, layers);
    }
    return { expertOwner, replicas, notes: [] };
  },
};

function ownersAndCopies(
  slots: Int32Array,
  experts: number,
  devices: number,
): { owner: Uint16Array; copies: number[][] } {
  const perDevice = slots.length / devices;
  const holders = Array.from({ length: experts }, (): number[] => []);
  slots.forEach((expert, slot) => {
    const device = Math.floor(slot / perDevice);
    if (!holders[expert]!.includes(device)) holders[expert]!.push(device);
  });
  const owner = new Uint16Array(experts);
  const owned = new Int32Array(devices);
  const order = Array.from(holders.keys()).sort((a, b) => holders[a]!.length - holders[b]!.length || a - b);
  const copies = Array.from({ length: devices }, (): number[] => []);
  for (const expert of order) {
    const chosen = holders[expert]!.reduce((best, device) => (owned[device]! < owned[best]! ? device : best));
    owner[expert] = chosen;
    owned[chosen]!++;
    for (const device of holders[expert]!) if (device !== chosen) copies[device]!.push(expert);
  }
  copies.forEach((list) => list.sort((a, b) => a - b));
  return { owner, copies };
}
