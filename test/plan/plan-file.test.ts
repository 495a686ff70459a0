import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { SmoeError } from '../../src/errors.ts';
import { assertPlanFits } from '../../src/plan/fit.ts';
import type { Plan } from '../../src/plan/plan.ts';
import { decodePlan, encodePlan, readPlan, writePlan } from '../../src/plan/plan-file.ts';
import { solvePlan } from '../../src/plan/solve.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

describe('plan files', () => {
  let directory: string;
  let plan: Plan;
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'smoe-plan-'));
    const trace = syntheticTrace({
      layers: 2,
      experts: 10,
      topK: 3,
      vocabularySize: 40,
      requests: 10,
      tokensPerRequest: 40,
      seed: 1,
    });
    plan = await solvePlan(trace, { devices: 4 });
    const copy = plan.expertOwner.subarray(10, 20).findIndex((owner) => owner !== 1);
    plan.replicas[1]![1] = [copy];
  });
  after(() => rmSync(directory, { recursive: true }));

  it('come back exactly and leave no temporary file', () => {
    const path = join(directory, 'plan.json');
    writePlan(path, plan);
    assert.deepEqual(readPlan(path), plan);
    assert.equal(encodePlan(readPlan(path)), encodePlan(plan), 'hosts compare hashes of the text');
    const { prediction: _prediction, promise: _promise, ...bare } = plan;
    writePlan(path, { ...bare, prediction: undefined, promise: undefined });
    assert.equal(readPlan(path).prediction, undefined);
    assert.deepEqual(readdirSync(directory), ['plan.json']);
  });

  it('cannot be written or read where there is no directory', () => {
    const path = join(directory, 'absent', 'plan.json');
    assert.throws(() => writePlan(path, plan), { code: 'PLAN_WRITE' });
    assert.throws(() => readPlan(path), { code: 'PLAN_UNREADABLE' });
  });

  const damages: [string, (plan: Plan) => void, RegExp][] = [
    ['an owner out of range', (p) => (p.expertOwner[12] = 4), /expertOwner, layer 1: expert 2 is on device 4 of 4/],
    ['a device without experts', (p) => p.expertOwner.fill(0, 0, 10), /expertOwner, layer 0: device 1 owns no expert/],
    [
      'owners of the wrong number',
      (p) => (p.expertOwner = p.expertOwner.slice(1)),
      /expertOwner: holds 38 bytes, expected 40/,
    ],
    [
      'a copy beside its owner',
      (p) => (p.replicas[0]![p.expertOwner[3]!] = [3]),
      /replicas, layer 0, device \d: expert 3 is owned by the same device/,
    ],
    ['a copy of no expert', (p) => (p.replicas[0]![0] = [10]), /replicas, layer 0, device 0: expert 10 of 10/],
    ['copies out of order', (p) => (p.replicas[0]![0] = [5, 5]), /ids must ascend|owned by the same/],
    ['replicas of too few layers', (p) => p.replicas.pop(), /replicas: 1 entries for 2 layers/],
    [
      'a short table',
      (p) => (p.prediction!.tokenNeeds = new Uint8Array(3)),
      /prediction.tokenNeeds: holds 3 bytes, expected 320/,
    ],
    ['a predicted device out of range', (p) => (p.prediction!.tokenDevice[41] = 9), /layer 1, token 1: device 9/],
    ['no fingerprint', (p) => (p.modelFingerprint = ''), /modelFingerprint/],
    ['too few best predictors', (p) => p.prediction!.bestPredictor.pop(), /bestPredictor: 1 entries/],
    ['a negative promise', (p) => (p.promise!.loadImbalance = -1), /promise.loadImbalance/],
  ];
  for (const [what, damage, message] of damages) {
    it(`refuse ${what}`, () => {
      const damaged = structuredClone(plan);
      damage(damaged);
      assert.throws(
        () => decodePlan(encodePlan(damaged), 'plan.json'),
        (error) => error instanceof SmoeError && error.code === 'PLAN_INVALID' && message.test(error.message),
      );
    });
  }

  it('of another version are named so', () => {
    const text = encodePlan(plan).replace('"version":1', '"version":2');
    assert.throws(() => decodePlan(text, 'plan.json'), { code: 'PLAN_VERSION' });
  });

  it('raise only SmoeError however they are damaged', () => {
    const text = encodePlan(plan);
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.nat(20), fc.string({ maxLength: 6 }), (at, removed, inserted) => {
        try {
          decodePlan(text.slice(0, at) + inserted + text.slice(at + removed), 'plan.json');
        } catch (error) {
          assert.ok(error instanceof SmoeError, String((error as Error).stack));
          assert.match(error.code, /^PLAN_/);
        }
      }),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.json(), (json) => {
        assert.throws(() => decodePlan(json, 'plan.json'), SmoeError);
      }),
    );
  });

  it('fit the model and layouts whose ranks own a power of two devices each', () => {
    const { modelFingerprint, layers, experts, topK, vocabularySize } = plan;
    const target = { modelFingerprint, layers, experts, topK, vocabularySize };
    for (const ranks of [1, 2, 4]) assertPlanFits(plan, { ...target, ranks });
    for (const ranks of [3, 8, 11])
      assert.throws(() => assertPlanFits(plan, { ...target, ranks }), { code: 'PLAN_LAYOUT' });
    const six = { ...plan, devices: 6 };
    for (const ranks of [6, 3]) assertPlanFits(six, { ...target, ranks });
    for (const ranks of [1, 2]) assert.throws(() => assertPlanFits(six, { ...target, ranks }), { code: 'PLAN_LAYOUT' });
    assert.throws(() => assertPlanFits(plan, { ...target, experts: 12, ranks: 2 }), {
      code: 'PLAN_OTHER_MODEL',
      message: /experts is 10/,
    });
    assert.throws(() => assertPlanFits(plan, { ...target, modelFingerprint: 'other', ranks: 2 }), {
      code: 'PLAN_OTHER_MODEL',
    });
  });
});
