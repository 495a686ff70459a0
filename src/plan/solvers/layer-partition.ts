import type { DeviceLayout } from '../device-layout.ts';
import { type ExpertSets, layoutCost, sampleSets } from '../objective.ts';
import type { SeededRandom } from '../seeded-random.ts';
import { mostBalancedOwners } from './balance.ts';
import { anneal, type Deadline, descend, repairLoad } from './local-search.ts';
import { Partition, type PartitionOptions } from './partition.ts';
import { affinityOwners, contiguousIn, randomOwners } from './starts.ts';

const finalists = 3;

/** How hard to search. Many short runs find better placements than few long ones in the same time. */
export interface SearchEffort {
  /** Annealing runs from random starts beside the greedy and the contiguous one. */
  randomStarts: number;
  /** Swaps tried per expert in each run. */
  proposalsPerExpert: number;
  /** Most pairs of experts within sets that the annealing looks at. */
  annealingPairs: number;
  /** The same for the final descent; bounds memory too. */
  descentPairs: number;
}

export const fullEffort: Readonly<SearchEffort> = {
  randomStarts: 6,
  proposalsPerExpert: 625,
  annealingPairs: 280_000,
  descentPairs: 2_000_000,
};
/** Layers times experts that are searched with full effort. */
const fullEffortExperts = 1024;

/**
 * Less effort for models of many layers and experts, so that their plans still take seconds to a minute: beyond `fullEffortExperts` the
 * starts first, then the proposals of each and the sets they look at. On the shipped model the least effort costs about 1 % in quality.
 */
export function effortFor(layers: number, experts: number): SearchEffort {
  const share = Math.min(1, fullEffortExperts / (layers * experts));
  return {
    randomStarts: Math.max(1, Math.round(fullEffort.randomStarts * share)),
    proposalsPerExpert: Math.max(200, Math.round(fullEffort.proposalsPerExpert * Math.sqrt(share))),
    annealingPairs: Math.max(112_000, Math.round(fullEffort.annealingPairs * Math.sqrt(share))),
    descentPairs: Math.max(800_000, Math.round(fullEffort.descentPairs * Math.sqrt(share))),
  };
}

export interface PartitionTask {
  sets: ExpertSets;
  /** [N] routed pairs the load bound is checked on */
  loads: Float64Array;
  layout: DeviceLayout;
  /** Most routed pairs / speed of a device. */
  loadBound: number;
  /** [N] placement to move away from, at `movePrice` per expert. */
  start?: Uint16Array | undefined;
  movePrice?: number;
  random: SeededRandom;
  deadline: Deadline;
  effort?: Readonly<SearchEffort>;
}

export interface PartitionResult {
  /** [N] */
  owner: Uint16Array;
  /** Over all sets, at the layout's prices, moves included. */
  cost: number;
  /** Largest load / speed of a device. */
  largestLoad: number;
  /** Placements that no swap improves on the sampled sets, cheapest first. */
  candidates: Uint16Array[];
}

/**
 * Balanced hypergraph partitioning of one layer in the connectivity metric (docs/method.md, what actually costs bytes).
 * 1. starts: greedy affinity clustering, contiguous, several random ones; each made to obey the load bound;
 * 2. simulated annealing over swaps on a sample of the sets, with exact incremental gains;
 * 3. the cheapest few descend on (nearly) all sets to placements no swap improves;
 * 4. the cheapest wins, contiguous included, so the result is never worse than contiguous where that obeys the bound.
 * Where no placement was found that obeys the bound, the most balanced one is the bound.
 */
export function partitionExperts(task: PartitionTask): PartitionResult {
  const { sets, loads, layout, start, movePrice = 0, random, deadline } = task;
  const { randomStarts, proposalsPerExpert, annealingPairs, descentPairs } = task.effort ?? fullEffort;
  const { experts } = sets;
  const options: PartitionOptions = { loads, start, movePrice };
  const balanced = mostBalancedOwners(loads, layout);
  const all = new Partition(sampleSets(sets, descentPairs, random), layout, balanced, options);
  const loadBound = Math.max(task.loadBound, all.largestLoad());
  const sample = sampleSets(sets, annealingPairs, random);
  const sampleShare = sample.tokens / sets.tokens;
  const sampled = new Partition(sample, layout, balanced, { ...options, movePrice: movePrice * sampleShare });
  const contiguous = contiguousIn(experts, layout);

  let best = balanced;
  let bestCost = Number.POSITIVE_INFINITY;
  const offer = (owner: Uint16Array): void => {
    let cost = layoutCost(sets, owner, layout);
    if (start !== undefined) owner.forEach((device, expert) => (cost += device === start[expert] ? 0 : movePrice));
    if (cost < bestCost) {
      bestCost = cost;
      best = owner;
    }
  };
  const fits = (owner: Uint16Array): boolean => {
    all.reset(owner);
    return all.largestLoad() <= loadBound;
  };
  offer(balanced);
  if (fits(contiguous)) offer(contiguous);
  if (start !== undefined && fits(start)) offer(start);
  const starts = [
    ...(start === undefined ? [] : [() => start]),
    () => affinityOwners(sets, loads, layout),
    () => contiguous,
    ...Array.from({ length: randomStarts }, () => () => randomOwners(experts, layout, random)),
  ];
  const candidates: { owner: Uint16Array; cost: number }[] = [];
  for (const makeStart of starts) {
    sampled.reset(makeStart());
    if (!repairLoad(sampled, loadBound)) sampled.reset(balanced);
    anneal(sampled, loadBound, proposalsPerExpert * experts, random, deadline);
    descend(sampled, loadBound, deadline);
    candidates.push({ owner: sampled.placement(), cost: sampled.cost });
    if (deadline.passed()) break;
  }
  candidates.sort((a, b) => a.cost - b.cost);
  for (const candidate of candidates.slice(0, finalists)) {
    all.reset(candidate.owner);
    descend(all, loadBound, deadline);
    offer(all.placement());
  }
  all.reset(best);
  return {
    owner: best,
    cost: bestCost,
    largestLoad: all.largestLoad(),
    candidates: candidates.map(({ owner }) => owner),
  };
}
