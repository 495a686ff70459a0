import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { layoutOf } from '../../src/plan/device-layout.ts';
import { collectExpertSets, connectivityCost, loadImbalance, setLoads } from '../../src/plan/objective.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';
import { mostBalancedOwners } from '../../src/plan/solvers/balance.ts';
import { contiguousOwners } from '../../src/plan/solvers/contiguous.ts';
import { partitionExperts, type PartitionResult } from '../../src/plan/solvers/layer-partition.ts';
import { Deadline } from '../../src/plan/solvers/local-search.ts';
import { Partition } from '../../src/plan/solvers/partition.ts';
import { affinityOwners, randomOwners } from '../../src/plan/solvers/starts.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

const shape = fc.record({
  experts: fc.integer({ min: 4, max: 20 }),
  topK: fc.integer({ min: 1, max: 4 }),
  devices: fc.integer({ min: 2, max: 4 }),
  seed: fc.nat(1000),
});

function setsOf({
  experts,
  topK,
  seed,
}: {
  experts: number;
  topK: number;
  seed: number;
}): ReturnType<typeof collectExpertSets> {
  const trace = syntheticTrace({
    layers: 1,
    experts,
    topK,
    vocabularySize: 20,
    requests: 4,
    tokensPerRequest: 30,
    seed,
  });
  return collectExpertSets(trace, 0);
}

function sizes(owner: Uint16Array, devices: number): number[] {
  const held = Array.from({ length: devices }, () => 0);
  for (const device of owner) held[device]!++;
  return held;
}

function assertNearEqual(owner: Uint16Array, devices: number): void {
  const held = sizes(owner, devices);
  assert.equal(Math.min(...held), Math.floor(owner.length / devices));
  assert.equal(Math.max(...held), Math.ceil(owner.length / devices));
}

describe('expert sets', () => {
  it('merge equal sets and keep every token', () => {
    const trace = syntheticTrace({
      layers: 2,
      experts: 6,
      topK: 2,
      vocabularySize: 10,
      requests: 4,
      tokensPerRequest: 100,
      seed: 1,
    });
    const sets = collectExpertSets(trace, 1);
    assert.ok(sets.count <= 15);
    assert.equal(
      sets.weights.reduce((sum, weight) => sum + weight, 0),
      400,
    );
    const distinct = new Set(
      Array.from({ length: sets.count }, (_, set) => sets.members.subarray(set * 2, set * 2 + 2).join()),
    );
    assert.equal(distinct.size, sets.count);
  });
});

describe('partition', () => {
  it('knows the exact cost and gains after any sequence of swaps', () => {
    fc.assert(
      fc.property(shape, ({ experts, topK, devices, seed }) => {
        const sets = setsOf({ experts, topK, seed });
        const random = new SeededRandom(seed);
        const partition = new Partition(
          sets,
          layoutOf(devices, experts),
          randomOwners(experts, layoutOf(devices, experts), random),
        );
        for (let i = 0; i < 40; i++) {
          const [first, second] = [random.below(partition.vertices), random.below(partition.vertices)];
          if (!partition.canSwap(first, second)) continue;
          const load = partition.loadAfterSwap(first, second);
          const [from, to] = [partition.owner[first]!, partition.owner[second]!];
          partition.swap(first, second, partition.swapDelta(first, second));
          assert.equal(load, Math.max(partition.deviceLoads[from]!, partition.deviceLoads[to]!));
          assert.equal(partition.cost, connectivityCost(sets, partition.placement(), devices));
          assertNearEqual(partition.placement(), devices);
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe('starting placements', () => {
  it('own every expert once on devices of near-equal size', () => {
    fc.assert(
      fc.property(shape, ({ experts, topK, devices, seed }) => {
        const sets = setsOf({ experts, topK, seed });
        const loads = setLoads(sets);
        assertNearEqual(contiguousOwners(experts, devices), devices);
        assertNearEqual(affinityOwners(sets, loads, layoutOf(devices, experts)), devices);
        assertNearEqual(mostBalancedOwners(loads, layoutOf(devices, experts)), devices);
        assertNearEqual(randomOwners(experts, layoutOf(devices, experts), new SeededRandom(seed)), devices);
      }),
      { numRuns: 60 },
    );
  });
});

/** Cheapest placement by trying all, within the load bound. */
function exhaustiveCost(sets: ReturnType<typeof collectExpertSets>, devices: number, maximumImbalance: number): number {
  const loads = setLoads(sets);
  const owner = new Uint16Array(sets.experts);
  const held = new Int32Array(devices);
  const most = Math.ceil(sets.experts / devices);
  let best = Number.POSITIVE_INFINITY;
  const place = (expert: number): void => {
    if (expert === sets.experts) {
      if (Math.min(...held) < Math.floor(sets.experts / devices)) return;
      if (loadImbalance(loads, owner, devices) <= maximumImbalance)
        best = Math.min(best, connectivityCost(sets, owner, devices));
      return;
    }
    for (let device = 0; device < devices; device++) {
      if (held[device]! >= most) continue;
      owner[expert] = device;
      held[device]!++;
      place(expert + 1);
      held[device]!--;
    }
  };
  place(0);
  return best;
}

function partitionLayer(
  sets: ReturnType<typeof collectExpertSets>,
  devices: number,
  maximumImbalance: number,
  random: SeededRandom,
): PartitionResult & { imbalanceBound: number } {
  const meanLoad = (sets.tokens * sets.topK) / devices;
  const result = partitionExperts({
    sets,
    loads: setLoads(sets),
    layout: layoutOf(devices, sets.experts),
    loadBound: maximumImbalance * meanLoad,
    random,
    deadline: new Deadline(),
  });
  return { ...result, imbalanceBound: Math.max(maximumImbalance, result.largestLoad / meanLoad) };
}

describe('hypergraph layer solver', () => {
  it('finds the optimum of small layers', () => {
    for (const [experts, devices, maximumImbalance] of [
      [8, 2, 1.2],
      [9, 3, 1.15],
      [10, 3, 1.3],
      [8, 4, 1.1],
    ] as const) {
      for (let seed = 1; seed <= 3; seed++) {
        const sets = setsOf({ experts, topK: 3, seed });
        const result = partitionLayer(sets, devices, maximumImbalance, new SeededRandom(seed));
        assertNearEqual(result.owner, devices);
        assert.equal(result.cost, connectivityCost(sets, result.owner, devices));
        assert.equal(
          result.cost,
          exhaustiveCost(sets, devices, result.imbalanceBound),
          `${experts} experts, ${devices} devices, seed ${seed}`,
        );
      }
    }
  });

  it('keeps the load bound, or the best reachable one, and never does worse than a contiguous placement that keeps it', () => {
    fc.assert(
      fc.property(
        shape,
        fc.double({ min: 1, max: 1.5, noNaN: true }),
        ({ experts, topK, devices, seed }, maximumImbalance) => {
          const sets = setsOf({ experts, topK, seed });
          const loads = setLoads(sets);
          const result = partitionLayer(sets, devices, maximumImbalance, new SeededRandom(seed));
          const imbalance = loadImbalance(loads, result.owner, devices);
          assert.ok(imbalance <= result.imbalanceBound + 1e-9);
          assert.ok(result.imbalanceBound >= maximumImbalance);
          const contiguous = contiguousOwners(experts, devices);
          if (loadImbalance(loads, contiguous, devices) <= result.imbalanceBound) {
            assert.ok(result.cost <= connectivityCost(sets, contiguous, devices));
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  it('gives the same placement for the same seed', () => {
    const sets = setsOf({ experts: 20, topK: 4, seed: 9 });
    const solve = (): Uint16Array => partitionLayer(sets, 4, 1.1, new SeededRandom(7)).owner;
    assert.deepEqual(solve(), solve());
  });
});
