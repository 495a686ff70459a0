import type { DeviceLayout } from '../device-layout.ts';
import { contractSets, type ExpertSets, noExpert, sampleSets } from '../objective.ts';
import { SeededRandom } from '../seeded-random.ts';
import { Copies, mostMembers } from './copies.ts';
import { type PartitionResult, partitionExperts, type SearchEffort } from './layer-partition.ts';
import { Deadline } from './local-search.ts';
import { chooseCopies, dropOverload, exchangeCopies, hold } from './replicas.ts';

/** Most sets the copies of every candidate placement are chosen on, and of the best few. */
const trialSets = 8_000;
const finalSets = 60_000;
const copyFinalists = 3;
/** The cheapest placement without copies is often not the cheapest with them: more candidates. */
const randomStartsWithCopies = 10;

/** One layer's problem as plain data, so that it can cross threads. */
export interface HypergraphLayerTask {
  layer: number;
  sets: ExpertSets;
  /** [N] routed pairs */
  loads: Float64Array;
  layout: DeviceLayout;
  maximumImbalance: number;
  seed: number;
  /** Copies each device holds beside the experts it owns. */
  replicasPerDevice: number;
  /** Experts in that many blocks of consecutive ids, each kept whole on one device or node. */
  groups: number;
  keepGroupsOn: 'device' | 'node';
  /** [N] placement to move away from; a moved expert costs as much as `movePrice` rows per token at price 1. */
  start: Uint16Array | undefined;
  movePrice: number;
  effort: Readonly<SearchEffort>;
  /** Infinite without a time limit. */
  budgetMs: number;
}

export interface HypergraphLayerResult {
  /** [N] */
  owner: Uint16Array;
  /** [P] copies per device, ascending */
  replicas: number[][];
  /** Load bound that was kept, largest / mean: above the wanted one where no placement was found that meets it. */
  imbalanceBound: number;
}

/** Owners first, then copies for each of the candidate placements; the cheapest pair wins. */
export function solveHypergraphLayer(task: HypergraphLayerTask): HypergraphLayerResult {
  const { sets, layout, maximumImbalance, replicasPerDevice } = task;
  const random = new SeededRandom(task.seed, task.layer);
  const deadline = new Deadline(task.budgetMs);
  const meanLoad = task.loads.reduce((sum, load) => sum + load, 0) / layout.devices;
  const wantedBound = maximumImbalance * meanLoad * (1 + 1e-9);
  const placed = partitionGroups(task, wantedBound, random, deadline);
  const imbalanceBound =
    placed.largestLoad <= wantedBound ? maximumImbalance : placed.largestLoad / Math.max(1, meanLoad);
  if (replicasPerDevice === 0 || layout.devices === 1 || sets.topK > mostMembers)
    return { owner: placed.owner, replicas: Array.from({ length: layout.devices }, () => []), imbalanceBound };
  const bound = Math.max(wantedBound, placed.largestLoad);
  const moves = (owner: Uint16Array): number =>
    task.start === undefined ? 0 : owner.reduce((sum, device, e) => sum + (device === task.start![e] ? 0 : 1), 0);
  const boundOn = (part: ExpertSets): number => (bound * part.tokens) / sets.tokens;
  const priceOf = (copies: Copies): number => copies.cost / copies.sets.tokens + task.movePrice * moves(copies.owner);
  const trial = sampleSets(sets, trialSets * pairsOf(sets), random);
  const ranked: { owner: Uint16Array; held: Uint8Array; price: number }[] = [];
  for (const owner of [placed.owner, ...placed.candidates]) {
    if (ranked.length > 0 && deadline.passed()) break;
    const copies = new Copies(trial, layout, owner);
    chooseCopies(copies, replicasPerDevice, boundOn(trial), deadline);
    ranked.push({ owner, held: copies.held, price: priceOf(copies) });
  }
  ranked.sort((a, b) => a.price - b.price);
  const full = sampleSets(sets, finalSets * pairsOf(sets), random);
  let best: Copies | undefined;
  for (const { owner, held } of ranked.slice(0, copyFinalists)) {
    if (best !== undefined && deadline.passed()) break;
    const copies = new Copies(full, layout, owner);
    hold(copies, held);
    dropOverload(copies, boundOn(full));
    exchangeCopies(copies, boundOn(full), deadline);
    if (best === undefined || priceOf(copies) < priceOf(best)) best = copies;
  }
  return { owner: best!.owner, replicas: best!.lists(), imbalanceBound };
}

function pairsOf({ topK }: ExpertSets): number {
  return Math.max(1, (topK * (topK - 1)) / 2);
}

type Placed = Pick<PartitionResult, 'owner' | 'largestLoad' | 'candidates'>;

/** Partitions experts, or blocks of them where groups stay whole. */
function partitionGroups(
  task: HypergraphLayerTask,
  loadBound: number,
  random: SeededRandom,
  deadline: Deadline,
): Placed {
  const { sets, loads, layout, groups, keepGroupsOn, start } = task;
  const { experts } = sets;
  const movePrice = task.movePrice * sets.tokens;
  const effort = { ...task.effort, ...(task.replicasPerDevice > 0 ? { randomStarts: randomStartsWithCopies } : {}) };
  if (groups === 0)
    return partitionExperts({ sets, loads, layout, loadBound, start, movePrice, random, deadline, effort });
  const size = experts / groups;
  const groupOf = new Uint16Array(experts).map((_, expert) => Math.floor(expert / size));
  const groupLoads = new Float64Array(groups);
  loads.forEach((load, expert) => (groupLoads[groupOf[expert]!]! += load));
  const contracted = contractSets(sets, groupOf, groups);
  const ofGroups = { sets: contracted, loads: groupLoads, random, deadline, effort: task.effort };
  if (keepGroupsOn === 'device') {
    const placed = partitionExperts({
      ...ofGroups,
      layout: { ...layout, ...blockLimits(layout, size, groups) },
      loadBound,
      start: start === undefined ? undefined : new Uint16Array(groups).map((_, group) => start[group * size]!),
      movePrice: movePrice * size,
    });
    const expand = (owner: Uint16Array): Uint16Array => groupOf.map((group) => owner[group]!);
    return { owner: expand(placed.owner), largestLoad: placed.largestLoad, candidates: placed.candidates.map(expand) };
  }
  const nodes = partitionExperts({ ...ofGroups, layout: nodeLayout(layout, size, groups), loadBound, movePrice: 0 });
  return placeWithinNodes(
    task,
    groupOf.map((group) => nodes.owner[group]!),
    loadBound,
    random,
    deadline,
  );
}

/** Limits in whole blocks of experts. */
function blockLimits(layout: DeviceLayout, size: number, groups: number): Pick<DeviceLayout, 'fewest' | 'most'> {
  const { devices } = layout;
  const even = layout.fewest.every((fewest, device) => fewest >= layout.most[device]! - 1);
  if (!even)
    return { fewest: new Int32Array(devices).fill(1), most: layout.most.map((most) => Math.floor(most / size)) };
  return {
    fewest: new Int32Array(devices).fill(Math.floor(groups / devices)),
    most: new Int32Array(devices).fill(Math.ceil(groups / devices)),
  };
}

/** Nodes as if they were devices. */
function nodeLayout(
  { nodes, nodeOf, outerPrice, most, fewest, speeds }: DeviceLayout,
  size: number,
  groups: number,
): DeviceLayout {
  const sumOf = (values: ArrayLike<number>): number[] => {
    const sums = Array.from({ length: nodes }, () => 0);
    nodeOf.forEach((node, device) => (sums[node]! += values[device]!));
    return sums;
  };
  const room = sumOf(most).map((slots) => Math.min(groups, Math.floor(slots / size)));
  return {
    devices: nodes,
    nodes: 1,
    nodeOf: new Uint16Array(nodes),
    innerPrice: outerPrice,
    outerPrice,
    most: Int32Array.from(room),
    fewest: Int32Array.from(sumOf(fewest).map((slots, node) => Math.min(room[node]!, Math.ceil(slots / size)))),
    speeds: Float64Array.from(sumOf(speeds)),
  };
}

/** Every node's experts onto its devices, each node on its own: with the nodes settled only rows inside them are left to save. */
function placeWithinNodes(
  task: HypergraphLayerTask,
  expertNode: Uint16Array,
  loadBound: number,
  random: SeededRandom,
  deadline: Deadline,
): Placed {
  const { sets, loads, layout, start } = task;
  const owner = new Uint16Array(sets.experts);
  let largestLoad = 0;
  for (let node = 0; node < layout.nodes; node++) {
    const devices = Array.from(layout.nodeOf.keys()).filter((device) => layout.nodeOf[device] === node);
    const experts = Array.from(expertNode.keys()).filter((expert) => expertNode[expert] === node);
    const least = Math.floor(experts.length / devices.length);
    const placed = partitionExperts({
      sets: restrictSets(sets, experts),
      loads: Float64Array.from(experts, (expert) => loads[expert]!),
      layout: {
        devices: devices.length,
        nodes: 1,
        nodeOf: new Uint16Array(devices.length),
        innerPrice: layout.innerPrice,
        outerPrice: layout.innerPrice,
        fewest: Int32Array.from(devices, (device) => Math.min(least, layout.fewest[device]!)),
        most: Int32Array.from(devices, (device) => layout.most[device]!),
        speeds: Float64Array.from(devices, (device) => layout.speeds[device]!),
      },
      loadBound,
      start: keptInside(start, experts, devices),
      movePrice: task.movePrice * sets.tokens,
      random,
      deadline,
      effort: task.effort,
    });
    experts.forEach((expert, i) => (owner[expert] = devices[placed.owner[i]!]!));
    largestLoad = Math.max(largestLoad, placed.largestLoad);
  }
  return { owner, largestLoad, candidates: [] };
}

/** The starting placement of a node's experts; undefined when some come from another node. */
function keptInside(start: Uint16Array | undefined, experts: number[], devices: number[]): Uint16Array | undefined {
  if (start === undefined || experts.some((expert) => !devices.includes(start[expert]!))) return undefined;
  return Uint16Array.from(experts, (expert) => devices.indexOf(start[expert]!));
}

/** The sets seen by some of the experts only, which are numbered from 0; sets without any are dropped. */
function restrictSets(sets: ExpertSets, experts: number[]): ExpertSets {
  const { topK, count, members, weights } = sets;
  const number = new Uint16Array(sets.experts).fill(noExpert);
  experts.forEach((expert, i) => (number[expert] = i));
  const kept = new Uint16Array(count * topK).fill(noExpert);
  const keptWeights = new Int32Array(count);
  let keptCount = 0;
  let tokens = 0;
  for (let set = 0; set < count; set++) {
    let size = 0;
    for (let at = set * topK; at < (set + 1) * topK && members[at] !== noExpert; at++) {
      const member = number[members[at]!]!;
      if (member !== noExpert) kept[keptCount * topK + size++] = member;
    }
    if (size === 0) continue;
    keptWeights[keptCount++] = weights[set]!;
    tokens += weights[set]!;
  }
  return {
    experts: experts.length,
    topK,
    count: keptCount,
    members: kept.slice(0, keptCount * topK),
    weights: keptWeights.slice(0, keptCount),
    tokens,
  };
}
