import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { loadCluster } from '../../src/cluster/cluster-file.ts';
import { clusterDevices } from '../../src/plan/cluster-devices.ts';
import { type DeviceDescription, layoutOf } from '../../src/plan/device-layout.ts';
import { diffPlans, movedExperts } from '../../src/plan/diff.ts';
import { evaluatePlacement } from '../../src/plan/evaluate.ts';
import { fallBackToContiguous, placementCost } from '../../src/plan/fallback.ts';
import { collectExpertSets, layoutCost } from '../../src/plan/objective.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';
import { solvePlan, type SolveOptions } from '../../src/plan/solve.ts';
import { solvers } from '../../src/plan/solvers/index.ts';
import { Copies } from '../../src/plan/solvers/copies.ts';
import { contiguousIn, randomOwners } from '../../src/plan/solvers/starts.ts';
import { Partition } from '../../src/plan/solvers/partition.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

const shape = { layers: 2, experts: 16, topK: 3, vocabularySize: 60, requests: 12, tokensPerRequest: 40, structure: 2 };
const trace = syntheticTrace({ ...shape, seed: 5 });
const options = { devices: 4, seed: 3, threads: 1 } satisfies SolveOptions;

/** [P] experts that a device owns in a layer. */
function owned(expertOwner: Uint16Array, layer: number, devices: number): number[] {
  const sizes = Array.from({ length: devices }, () => 0);
  for (const device of expertOwner.subarray(layer * 16, (layer + 1) * 16)) sizes[device]!++;
  return sizes;
}

/** Largest load / speed over the mean, on the requests the plan was solved from or any others. */
function imbalance(of: RoutingTrace, expertOwner: Uint16Array, layer: number, speeds: number[]): number {
  const loads = speeds.map(() => 0);
  const { layers, topK } = of.model;
  for (let row = 0; row < of.length; row++) {
    for (let i = 0; i < topK; i++)
      loads[expertOwner[layer * 16 + of.experts[(row * layers + layer) * topK + i]!]!]! += 1;
  }
  const mean = loads.reduce((sum, load) => sum + load, 0) / speeds.reduce((sum, speed) => sum + speed, 0);
  return Math.max(...loads.map((load, device) => load / speeds[device]! / mean));
}

describe('every solver', () => {
  for (const [name, solver] of Object.entries(solvers)) {
    it(`${name} owns each expert once, on every device, and repeats itself for one seed`, async () => {
      const solve = async (): Promise<Uint16Array> =>
        (await solver.solve({ trace, devices: 4, seed: 7, maximumImbalance: 1.2, threads: 1 })).expertOwner;
      const expertOwner = await solve();
      assert.equal(expertOwner.length, 32);
      for (let layer = 0; layer < 2; layer++) assert.deepEqual(owned(expertOwner, layer, 4), [4, 4, 4, 4]);
      assert.deepEqual(await solve(), expertOwner);
    });
  }

  it('hypergraph gives the same plan on one thread and on two', async () => {
    const large = syntheticTrace({ ...shape, requests: 40, tokensPerRequest: 220, seed: 6 });
    const one = await solvePlan(large, { ...options, threads: 1 });
    assert.deepEqual(await solvePlan(large, { ...options, threads: 2 }), one);
  });
});

describe('incremental gains', () => {
  it('equal recomputed cost in nodes, with empty places and a price for moving', () => {
    fc.assert(
      fc.property(fc.nat(1000), (seed) => {
        const sets = collectExpertSets(trace, 0);
        const layout = layoutOf(4, 16, {
          nodeOf: [0, 0, 1, 1],
          innerPrice: 1,
          outerPrice: 3,
          expertSlots: [6, 5, 5, 4],
        });
        const random = new SeededRandom(seed);
        const start = randomOwners(16, layout, random);
        const movePrice = 7;
        const partition = new Partition(sets, layout, randomOwners(16, layout, random), { start, movePrice });
        for (let i = 0; i < 30; i++) {
          const [first, second] = [random.below(partition.vertices), random.below(partition.vertices)];
          if (!partition.canSwap(first, second)) continue;
          partition.swap(first, second, partition.swapDelta(first, second));
          const owner = partition.placement();
          assert.equal(partition.cost, layoutCost(sets, owner, layout) + movePrice * movedExperts(start, owner));
          const sizes = owned(owner, 0, 4);
          assert.ok(sizes.every((size, device) => size >= 1 && size <= [6, 5, 5, 4][device]!));
        }
      }),
      { numRuns: 40 },
    );
  });

  it('of copies equal the cost of a placement with the same copies, and what evaluation counts', () => {
    fc.assert(
      fc.property(fc.nat(1000), (seed) => {
        const random = new SeededRandom(seed);
        const layout = layoutOf(4, 16);
        const sets = collectExpertSets(trace, 1);
        const owner = randomOwners(16, layout, random);
        const copies = new Copies(sets, layout, owner);
        for (let i = 0; i < 20; i++) {
          const [expert, device] = [random.below(16), random.below(4)];
          if (owner[expert] === device) continue;
          const before = copies.cost;
          const delta =
            copies.held[device * 16 + expert] === 1 ? copies.remove(expert, device) : copies.add(expert, device);
          assert.equal(copies.cost, before + delta);
          assert.equal(copies.cost, placementCost(sets, owner, copies.lists(), layout));
        }
        const expertOwner = new Uint16Array(32);
        expertOwner.set(owner, 16);
        const figures = evaluatePlacement({ devices: 4, expertOwner, replicas: [[], copies.lists()] }, trace);
        assert.ok(Math.abs(figures.layers[1]!.remoteDevicesPerToken - copies.cost / sets.tokens) < 1e-9);
      }),
      { numRuns: 40 },
    );
  });
});

describe('constraints', () => {
  it('keeps to unequal memory and speed', async () => {
    const cluster: DeviceDescription = { expertSlots: [2, 4, 8, 8], speeds: [1, 1, 2, 2] };
    const plan = await solvePlan(trace, { ...options, cluster, maximumImbalance: 1.3 });
    for (let layer = 0; layer < 2; layer++) {
      const sizes = owned(plan.expertOwner, layer, 4);
      assert.ok(
        sizes.every((size, device) => size >= 1 && size <= [2, 4, 8, 8][device]!),
        sizes.join(),
      );
      // The bound is on the four fifths of the requests that were solved on.
      assert.ok(imbalance(trace, plan.expertOwner, layer, [1, 1, 2, 2]) < 1.35);
    }
  });

  it('keeps blocks of experts whole on devices and on nodes', async () => {
    const cluster = { nodeOf: [0, 0, 1, 1] };
    const loose = { ...options, maximumImbalance: 3, expertGroups: 4 };
    const onDevices = await solvePlan(trace, loose);
    const onNodes = await solvePlan(trace, { ...loose, cluster, keepGroupsOn: 'node' });
    for (let expert = 0; expert < 32; expert++) {
      const first = expert - (expert % 4);
      assert.equal(onDevices.expertOwner[expert], onDevices.expertOwner[first]);
      assert.equal(onNodes.expertOwner[expert]! >> 1, onNodes.expertOwner[first]! >> 1);
    }
    assert.ok(onNodes.promise!.remoteDevicesPerToken <= onDevices.promise!.remoteDevicesPerToken + 0.05);
  });

  it('names the constraint that cannot be met, with exit status 3', async () => {
    const refused = (wrong: Partial<SolveOptions>, message: RegExp): Promise<void> =>
      assert.rejects(solvePlan(trace, { ...options, ...wrong }), { code: 'PLAN_INFEASIBLE', exitStatus: 3, message });
    await refused(
      { cluster: { expertSlots: [4, 4, 4, 3] } },
      /device memory: room for 15 experts in all, the model has 16/,
    );
    await refused({ replicasPerDevice: 13 }, /replicas: 13 copies per device/);
    await refused({ expertGroups: 3 }, /expert groups: 16 experts do not fall into 3/);
    await refused({ expertGroups: 2 }, /expert groups: 2 groups of 8 experts cannot stay whole on 4 devices/);
    await refused({ solver: 'exflow', devices: 3 }, /exflow/);
  });

  it('starts from a plan: nothing moves when moving costs too much, and more moves when it costs nothing', async () => {
    const start = await solvePlan(trace, { ...options, solver: 'contiguous' });
    const moves = async (movePrice: number): Promise<number> =>
      movedExperts(
        start.expertOwner,
        (await solvePlan(trace, { ...options, start, movePrice, maximumImbalance: 3 })).expertOwner,
      );
    assert.equal(await moves(1000), 0);
    const [some, many] = [await moves(0.02), await moves(0)];
    assert.ok(some > 0 && some < many, `${some} and ${many}`);
    await assert.rejects(solvePlan(trace, { ...options, devices: 2, start }), { code: 'PLAN_OTHER_MODEL' });
    await assert.rejects(solvePlan(trace, { ...options, start, movePrice: -1 }), {
      code: 'PLAN_MOVE_PRICE',
      exitStatus: 2,
    });
  });

  it('stops when told to, and still gives a plan when time is up at once', async () => {
    const aborted = AbortSignal.abort();
    await assert.rejects(solvePlan(trace, { ...options, signal: aborted }), { code: 'INTERRUPTED', exitStatus: 130 });
    const plan = await solvePlan(trace, { ...options, timeLimitSeconds: 0 });
    for (let layer = 0; layer < 2; layer++) assert.deepEqual(owned(plan.expertOwner, layer, 4), [4, 4, 4, 4]);
  });

  it('adds copies that pay, as many as asked for', async () => {
    const bare = await solvePlan(trace, options);
    const copied = await solvePlan(trace, { ...options, replicasPerDevice: 2 });
    assert.ok(copied.promise!.remoteDevicesPerToken < bare.promise!.remoteDevicesPerToken);
    for (const layer of copied.replicas) for (const copies of layer) assert.ok(copies.length <= 2);
    assert.ok(copied.replicas.flat(2).length > 0);
  });
});

describe('clusters as solvers see them', () => {
  it('take prices from links and leave even devices even', () => {
    const twoByEight = clusterDevices(loadCluster('infiniband-2x8'), 128, 0, undefined);
    assert.equal(twoByEight.innerPrice, 1);
    assert.ok(Math.abs(twoByEight.outerPrice! - 3200 / 380) < 1e-9);
    assert.equal(Array.from(twoByEight.nodeOf!).filter((node) => node === 1).length, 8);
    assert.equal(twoByEight.expertSlots, undefined);
    assert.deepEqual(clusterDevices(loadCluster('ethernet-1g-4'), 64, 0, undefined), {});
  });

  it('count the experts that fit', () => {
    const cluster = loadCluster('ethernet-1g-4');
    cluster.nodes[3]!.device = { ...cluster.nodes[3]!.device, memoryBytes: 1.5e9 };
    const weights = { layers: 10, expert: 1e7, shared: 5e8 };
    assert.deepEqual(clusterDevices(cluster, 64, 0, weights).expertSlots, [23, 23, 23, 10]);
    assert.deepEqual(clusterDevices(cluster, 64, 2, weights).expertSlots, [24, 24, 23, 8]);
    assert.throws(() => clusterDevices(cluster, 64, 0, { ...weights, shared: 1.45e9 }), {
      code: 'PLAN_INFEASIBLE',
      exitStatus: 3,
      message: /device 3 \(host \d\): memoryGB: 1.50 GB cannot hold one expert per layer/,
    });
  });
});

describe('never worse than contiguous', () => {
  it('puts contiguous layers back where they are cheaper on traffic that was not solved on, and says so', () => {
    const layout = layoutOf(4, 16);
    const random = new SeededRandom(2);
    const fallbackOptions = {
      fit: trace,
      test: trace,
      layout,
      maximumImbalance: 3,
      expertGroups: 0,
      keepGroupsOn: 'device' as const,
    };
    const contiguous = contiguousIn(16, layout);
    // Layer 0 is worse than contiguous on a trace whose experts are contiguous clusters; layer 1 is contiguous itself.
    const blocks: RoutingTrace = {
      ...trace,
      experts: trace.experts.map((_, at) => 4 * (Math.floor(at / 6) % 4) + (at % 3)),
    };
    const placement = {
      expertOwner: Uint16Array.from([...randomOwners(16, layout, random), ...contiguous]),
      notes: [] as string[],
    };
    fallBackToContiguous(placement, { ...fallbackOptions, fit: blocks, test: blocks });
    assert.deepEqual([...placement.expertOwner], [...contiguous, ...contiguous]);
    assert.equal(placement.notes.length, 1);
    assert.match(
      placement.notes[0]!,
      /layer 0: contiguous costs 0.000 per token on held-out traffic, .* contiguous is used/,
    );
  });
});

describe('plan differences', () => {
  it('name what moved, which copies came and went, and what changed in the promise', async () => {
    const from = await solvePlan(trace, { ...options, solver: 'contiguous' });
    const to = structuredClone(from);
    to.expertOwner[1] = 3;
    to.expertOwner[15] = 0;
    to.replicas[1]![2] = [0];
    to.promise!.loadImbalance += 0.5;
    const diff = diffPlans(from, to);
    assert.equal(diff.movedExperts, 2);
    assert.deepEqual(diff.layers[0]!.moved, [
      { expert: 1, from: 0, to: 3 },
      { expert: 15, from: 3, to: 0 },
    ]);
    assert.deepEqual(diff.layers[1]!.replicasAdded, [{ expert: 0, device: 2 }]);
    assert.deepEqual(diffPlans(to, from).layers[1]!.replicasRemoved, [{ expert: 0, device: 2 }]);
    assert.ok(diff.promise.sameSource);
    assert.ok(Math.abs(diff.promise.loadImbalance.change! - 0.5) < 1e-9);
    assert.throws(() => diffPlans(from, { ...to, devices: 8 }), {
      code: 'PLAN_DIFF_SHAPE',
      message: /devices: 4 and 8/,
    });
  });
});
