import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bestHomes, evaluatePlacement, slicedHomes } from '../../src/plan/evaluate.ts';
import { nearestSeenTokens } from '../../src/plan/nearest-token.ts';
import { buildPredictionTables, layerNeeds } from '../../src/plan/prediction-tables.ts';
import { chooseLayerPredictors } from '../../src/plan/predictor-choice.ts';
import { solvePlan } from '../../src/plan/solve.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

const trace: RoutingTrace = syntheticTrace({
  layers: 3,
  experts: 16,
  topK: 4,
  vocabularySize: 100,
  requests: 20,
  tokensPerRequest: 60,
  seed: 8,
  structure: 2,
});

describe('solving a plan', () => {
  it('beats the contiguous placement on held-out requests and keeps its promises reproducible', async () => {
    const seen: number[] = [];
    const plan = await solvePlan(trace, { devices: 4, onProgress: (done) => seen.push(done) });
    const contiguous = await solvePlan(trace, { devices: 4, solver: 'contiguous' });
    assert.ok(plan.promise!.remoteDevicesPerToken < 0.9 * contiguous.promise!.remoteDevicesPerToken);
    assert.ok(plan.promise!.localActivationRate > contiguous.promise!.localActivationRate);
    assert.deepEqual(seen, [1, 2, 3]);
    assert.deepEqual(await solvePlan(trace, { devices: 4 }), plan);
  });

  it('fills tables that rank the device a token needs most', async () => {
    const plan = await solvePlan(trace, { devices: 4 });
    const { tokenDevice, tokenConfidence, tokenNeeds, transitionNeeds, bestPredictor } = plan.prediction!;
    assert.equal(transitionNeeds.length, 3 * 64);
    assert.deepEqual(bestPredictor.slice(1), ['pregate', 'pregate']);
    let hits = 0;
    for (let layer = 0; layer < 3; layer++) {
      const { pairs } = layerNeeds(trace, plan.expertOwner, 4, layer);
      for (let row = 0; row < trace.length; row++)
        hits += pairs[row * 4 + tokenDevice[layer * 100 + trace.token[row]!]!]! > 0 ? 1 : 0;
    }
    assert.ok(hits / (3 * trace.length) > 0.85);
    for (let i = 0; i < tokenDevice.length; i++) {
      assert.equal(tokenConfidence[i], tokenNeeds[i * 4 + tokenDevice[i]!]);
      assert.equal(tokenConfidence[i], Math.max(...tokenNeeds.subarray(i * 4, i * 4 + 4)));
    }
  });

  it('lets unseen ids take after their nearest neighbour', async () => {
    const few = { ...trace, token: trace.token.map((id) => (id === 99 ? 98 : id)) };
    const frequent = 0;
    const values = new Float32Array(100 * 2).map((_, i) => Math.cos(i));
    values.set([5, 1], frequent * 2);
    values.set([10, 2], 99 * 2);
    const { expertOwner } = await solvePlan(few, { devices: 4, solver: 'contiguous' });
    const embedding = { values, hiddenSize: 2 };
    const needs = buildPredictionTables(few, expertOwner, 4, ['token', 'token', 'token'], { embedding }).tokenNeeds;
    assert.deepEqual(needs.slice(99 * 4, 100 * 4), needs.slice(frequent * 4, frequent * 4 + 4));
  });

  it('works without token ids and with one request', async () => {
    const unknown = { ...trace, token: trace.token.map(() => -1), model: { ...trace.model, vocabularySize: 0 } };
    const plan = await solvePlan(unknown, { devices: 2, solver: 'contiguous' });
    assert.equal(plan.prediction, undefined);
    assert.match(plan.notes!.join(), /no token ids/);
    const single = syntheticTrace({
      layers: 1,
      experts: 8,
      topK: 2,
      vocabularySize: 9,
      requests: 1,
      tokensPerRequest: 30,
      seed: 1,
    });
    assert.match((await solvePlan(single, { devices: 2 })).promise!.source, /the profile itself/);
  });

  it('says when the load bound cannot be met', async () => {
    const lopsided = {
      ...trace,
      experts: trace.experts.map((expert, i) => (i % 4 === 0 ? 0 : Math.max(expert, i % 4))),
    };
    const plan = await solvePlan(lopsided, { devices: 4 });
    assert.match(plan.notes![0]!, /layer 0: load imbalance 1.1 cannot be met/);
    await assert.rejects(solvePlan(lopsided, { devices: 4, maximumImbalance: 1 }), {
      code: 'PLAN_INFEASIBLE',
      exitStatus: 3,
      message: /layer 0: load imbalance 1 cannot be met/,
    });
  });

  it('refuses what no plan can be', async () => {
    await assert.rejects(solvePlan(trace, { devices: 17 }), { code: 'PLAN_INFEASIBLE', exitStatus: 3 });
    await assert.rejects(solvePlan(trace, { devices: 0 }), { code: 'PLAN_INFEASIBLE' });
    await assert.rejects(solvePlan(trace, { devices: 2, maximumImbalance: 0.9 }), { code: 'PLAN_INFEASIBLE' });
    await assert.rejects(solvePlan(trace, { devices: 2, solver: 'toString' }), { code: 'PLAN_SOLVER', exitStatus: 2 });
  });
});

describe('nearest seen tokens', () => {
  it('finds the candidate of highest cosine similarity', () => {
    const hiddenSize = 7;
    const values = new Float32Array(50 * hiddenSize).map((_, i) => Math.sin(i * i));
    const frequency = new Int32Array(50).map((_, id) => (id % 3 === 0 ? 0 : id % 5));
    const cosine = (a: number, b: number): number => {
      const row = (id: number): number[] => [...values.subarray(id * hiddenSize, (id + 1) * hiddenSize)];
      const dot = (x: number[], y: number[]): number => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
      return dot(row(a), row(b)) / Math.sqrt(dot(row(a), row(a)) * dot(row(b), row(b)));
    };
    const nearest = nearestSeenTokens({ values, hiddenSize }, frequency);
    nearest.forEach((neighbour, id) => {
      if (frequency[id]! > 0) return assert.equal(neighbour, -1);
      for (let other = 0; other < 50; other++) {
        if (frequency[other]! >= 3) assert.ok(cosine(id, other) <= cosine(id, neighbour) + 1e-9);
      }
    });
  });
});

describe('evaluation', () => {
  const placement = { devices: 2, expertOwner: Uint16Array.of(0, 0, 1, 1), replicas: [[[], []]] as number[][][] };
  const tiny: RoutingTrace = {
    model: { fingerprint: 'tiny', layers: 1, experts: 4, topK: 2, vocabularySize: 0 },
    source: 'by hand',
    length: 3,
    request: new Int32Array(3),
    position: Int32Array.of(0, 1, 2),
    token: new Int32Array(3).fill(-1),
    phase: new Uint8Array(3),
    experts: Uint16Array.of(0, 1, 0, 2, 2, 3),
    weights: undefined,
    labels: [''],
  };

  it('counts what a hand count gives', () => {
    assert.deepEqual([...bestHomes(placement, tiny, 0)], [0, 0, 1]);
    const figures = evaluatePlacement(placement, tiny);
    assert.equal(figures.localActivationRate, 5 / 6);
    assert.equal(figures.remoteDevicesPerToken, 1 / 3);
    assert.equal(figures.loadImbalance, 1);
    const wrong = evaluatePlacement(placement, tiny, () => Uint16Array.of(1, 1, 0));
    assert.equal(wrong.remoteDevicesPerToken, 1);
    assert.equal(wrong.recall, 1 / 3);
  });

  it('lets copies at home spare a remote device only when they cover all of it', () => {
    const withCopy = { ...placement, replicas: [[[2], []]] };
    assert.equal(evaluatePlacement(withCopy, tiny).remoteDevicesPerToken, 0);
    assert.equal(evaluatePlacement(withCopy, tiny, () => Uint16Array.of(0, 0, 0)).remoteDevicesPerToken, 1 / 3);
  });

  it('cuts equal slices batch by batch', () => {
    const needs = new Uint8Array(20).map((_, i) => (i % 2 === 0 ? 1 : 0));
    const homes = slicedHomes(needs, 10, 2, 4);
    assert.deepEqual([...homes], [1, 1, 0, 0, 1, 1, 0, 0, 1, 0]);
  });
});

describe('choice of predictors', () => {
  it('takes the best measured, and the pregate beyond the first layer when it was not measured', () => {
    const token = Float64Array.of(0.9, 0.5);
    const transition = Float64Array.of(0.2, 0.6);
    assert.deepEqual(chooseLayerPredictors({ token, transition }, 2), ['token', 'pregate']);
    assert.deepEqual(chooseLayerPredictors({ token, transition, pregate: Float64Array.of(0.95, 0.1) }, 2), [
      'pregate',
      'transition',
    ]);
  });
});
