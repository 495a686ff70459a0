import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { neededDevices } from '../../src/plan/needed-devices.ts';
import { decodePlan, encodePlan } from '../../src/plan/plan-file.ts';
import { buildPredictionTables, layerNeeds } from '../../src/plan/prediction-tables.ts';
import { measureTablePredictors } from '../../src/plan/predictor-choice.ts';
import { countConfidences, tableReliability } from '../../src/plan/reliability.ts';
import { solvePlan } from '../../src/plan/solve.ts';
import { chooseLookback } from '../../src/plan/transition-table.ts';
import { contiguousOwners } from '../../src/plan/solvers/contiguous.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

const [layers, experts, devices] = [5, 12, 3];
const trace = syntheticTrace({
  layers,
  experts,
  topK: 3,
  vocabularySize: 50,
  requests: 40,
  tokensPerRequest: 100,
  seed: 21,
});
const owner = Uint16Array.from(
  { length: layers * experts },
  (_, i) => contiguousOwners(experts, devices)[i % experts]!,
);
const best = Array.from({ length: layers }, () => 'token' as const);

describe('needed devices', () => {
  it('are those that own a pair, with the same best home', () => {
    for (let layer = 0; layer < layers; layer++) {
      const { pairs, bestDevice } = layerNeeds(trace, owner, devices, layer);
      const { lists, counts, best: homes } = neededDevices(trace, owner, devices, layer);
      assert.deepEqual(homes, bestDevice);
      for (let row = 0; row < trace.length; row++) {
        const wanted = [0, 1, 2].filter((device) => pairs[row * devices + device]! > 0);
        assert.deepEqual([...lists.subarray(row * 3, row * 3 + counts[row]!)].sort(), wanted);
      }
    }
  });
});

describe('transition tables', () => {
  for (const lookback of [1, 2, 3]) {
    it(`of ${lookback} layers say what tokens of a history needed`, () => {
      const { transitionNeeds } = buildPredictionTables(trace, owner, devices, best, { lookback });
      assert.equal(transitionNeeds.length, layers * devices ** (lookback + 1));
      const layer = 4;
      const needs = layerNeeds(trace, owner, devices, layer);
      const homes = [1, 2, 3].map((back) => layerNeeds(trace, owner, devices, layer - back).bestDevice);
      let checked = 0;
      for (let history = 0; history < devices ** lookback; history++) {
        const digits = [...history.toString(devices).padStart(lookback, '0')].map(Number);
        let seen = 0;
        const needed = new Float64Array(devices);
        for (let row = 0; row < trace.length; row++) {
          if (digits.some((digit, back) => homes[back]![row] !== digit)) continue;
          seen++;
          for (let device = 0; device < devices; device++)
            needed[device]! += needs.pairs[row * devices + device]! > 0 ? 1 : 0;
        }
        if (seen < 200) continue;
        checked++;
        const at = (layer * devices ** lookback + history) * devices;
        needed.forEach((count, device) => {
          assert.ok(Math.abs(transitionNeeds[at + device]! / 255 - count / seen) < 0.02);
        });
      }
      assert.ok(checked > 2);
    });

    it(`of ${lookback} layers come back from a file, predict and can be held against a trace`, async () => {
      const plan = await solvePlan(trace, { devices, lookback, solver: 'contiguous' });
      assert.equal(plan.prediction!.transitionLookback, lookback);
      assert.deepEqual(decodePlan(encodePlan(plan), 'here'), plan);
      const recall = measureTablePredictors(plan, trace).transition!;
      assert.ok(recall.every((share) => share > 0.5 && share <= 1));
      const { transitionNeeds } = tableReliability(
        countConfidences(plan.prediction!, trace, plan.expertOwner, devices),
      );
      assert.ok(transitionNeeds.calibrationError < 0.05);
    });
  }

  it('lean on shorter histories where the long one was never seen', () => {
    const few = { ...trace, length: 1, labels: ['one'] };
    const { transitionNeeds } = buildPredictionTables(few, owner, devices, best, { lookback: 3 });
    const { pairs } = layerNeeds(few, owner, devices, 4);
    const homes = [1, 2, 3].map((back) => layerNeeds(few, owner, devices, 4 - back).bestDevice[0]!);
    const unseen = (homes[2]! + 1) % devices;
    const row = 4 * 27 + homes[0]! * 9 + homes[1]! * 3 + unseen;
    for (let device = 0; device < devices; device++)
      assert.equal(transitionNeeds[row * devices + device], pairs[device]! > 0 ? 255 : 0);
  });

  it('read plans of before there was a choice, which look two layers back', async () => {
    const plan = await solvePlan(trace, { devices, solver: 'contiguous' });
    const stored = JSON.parse(encodePlan(plan)) as { prediction: { transitionLookback?: number } };
    delete stored.prediction.transitionLookback;
    assert.deepEqual(decodePlan(JSON.stringify(stored), 'old'), plan);
    stored.prediction.transitionLookback = 4;
    assert.throws(() => decodePlan(JSON.stringify(stored), 'new'), { code: 'PLAN_INVALID' });
  });

  it('stay small by themselves, and are refused when too large', () => {
    assert.equal(chooseLookback(undefined, 8, 4), 2);
    assert.equal(chooseLookback(undefined, 58, 256), 1);
    assert.equal(chooseLookback(3, 48, 8), 3);
    assert.throws(() => chooseLookback(3, 58, 64), { code: 'PLAN_LOOKBACK', exitStatus: 2 });
  });
});
