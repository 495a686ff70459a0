import { collectExpertSets, connectivityCost, type ExpertSets, setLoads } from '../objective.ts';
import { SeededRandom } from '../seeded-random.ts';
import type { PlacementProblem, PlacementSolver } from '../solver.ts';
import { mostBalancedOwners } from './balance.ts';
import { contiguousOwners } from './contiguous.ts';
import { anneal, descend, repairLoad } from './local-search.ts';
import { Partition } from './partition.ts';
import { affinityOwners, randomOwners } from './starts.ts';

/** Most pairs of experts within sets that the annealing and the final descent look at: bounds memory and time. */
const annealingPairs = 280_000;
const descentPairs = 2_000_000;
/** Many short runs find better placements than few long ones in the same time. */
const runs = 8;
const finalists = 3;
const proposalsPerExpert = 625;

export interface LayerPlacement {
  /** [N] */
  owner: Uint16Array;
  cost: number;
  /** The load bound that was kept, as largest / mean: above the wanted one where that could not be met. */
  imbalanceBound: number;
}

/**
 * Balanced hypergraph partitioning in the connectivity metric (docs/method.md, what actually costs bytes).
 * 1. starts: greedy affinity clustering, contiguous, several random ones; each made to obey the load bound;
 * 2. simulated annealing over swaps on a sample of the sets, with exact incremental gains;
 * 3. the cheapest few descend on (nearly) all sets to placements no swap improves;
 * 4. the cheapest wins, contiguous included, so the result is never worse than contiguous where that obeys the bound.
 */
export function partitionLayer(
  sets: ExpertSets,
  devices: number,
  maximumImbalance: number,
  random: SeededRandom,
): LayerPlacement {
  const { experts } = sets;
  const loads = setLoads(sets);
  const meanLoad = (sets.tokens * sets.topK) / devices;
  const balanced = mostBalancedOwners(loads, devices);
  const all = new Partition(sampleSets(sets, descentPairs, random), devices, balanced, loads);
  const balancedLoad = all.largestLoad();
  const loadBound = Math.max(maximumImbalance * meanLoad, balancedLoad);
  const sampled = new Partition(sampleSets(sets, annealingPairs, random), devices, balanced, loads);
  const contiguous = contiguousOwners(experts, devices);

  let best: Uint16Array | undefined;
  let bestCost = Number.POSITIVE_INFINITY;
  const offer = (owner: Uint16Array): void => {
    const cost = connectivityCost(sets, owner, devices);
    if (cost < bestCost) {
      bestCost = cost;
      best = owner;
    }
  };
  all.reset(contiguous);
  if (all.largestLoad() <= loadBound) offer(contiguous);
  const candidates: { owner: Uint16Array; cost: number }[] = [];
  for (let run = 0; run < runs; run++) {
    sampled.reset(
      run === 0
        ? affinityOwners(sets, loads, devices)
        : run === 1
          ? contiguous
          : randomOwners(experts, devices, random),
    );
    if (!repairLoad(sampled, loadBound)) sampled.reset(balanced);
    anneal(sampled, loadBound, proposalsPerExpert * experts, random);
    descend(sampled, loadBound);
    candidates.push({ owner: sampled.placement(), cost: sampled.cost });
  }
  candidates.sort((a, b) => a.cost - b.cost);
  for (const candidate of candidates.slice(0, finalists)) {
    all.reset(candidate.owner);
    descend(all, loadBound);
    offer(all.placement());
  }
  return { owner: best!, cost: bestCost, imbalanceBound: Math.max(maximumImbalance, balancedLoad / meanLoad) };
}

/** A random part of the distinct sets, as many as hold at most `mostPairs` pairs of experts. */
function sampleSets(sets: ExpertSets, mostPairs: number, random: SeededRandom): ExpertSets {
  const { experts, topK } = sets;
  const most = Math.floor(mostPairs / Math.max(1, (topK * (topK - 1)) / 2));
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

export const hypergraphSolver: PlacementSolver = {
  name: 'hypergraph',
  async solve({ trace, devices, seed, maximumImbalance, onProgress }: PlacementProblem) {
    const { layers, experts } = trace.model;
    const expertOwner = new Uint16Array(layers * experts);
    const notes: string[] = [];
    for (let layer = 0; layer < layers; layer++) {
      const sets = collectExpertSets(trace, layer);
      const placement = partitionLayer(sets, devices, maximumImbalance, new SeededRandom(seed, layer));
      expertOwner.set(placement.owner, layer * experts);
      if (placement.imbalanceBound > maximumImbalance) {
        notes.push(
          `layer ${layer}: load imbalance ${maximumImbalance} cannot be met, kept to ${placement.imbalanceBound.toFixed(3)}`,
        );
      }
      onProgress?.(layer + 1, layers);
    }
    return { expertOwner, notes };
  },
};
