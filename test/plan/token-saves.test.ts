import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { savesScale } from '../../src/plan/plan.ts';
import { decodePlan, encodePlan } from '../../src/plan/plan-file.ts';
import { buildPredictionTables } from '../../src/plan/prediction-tables.ts';
import { solvePlan } from '../../src/plan/solve.ts';
import { createTokenPredictor } from '../../src/predict/token.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

describe('what a home with copies saves, by token id', () => {
  it('counts the home itself and every device whose experts it holds copies of', () => {
    // Expert e is owned by device floor(e / 2); device 0 holds a copy of expert 2, device 2 copies of 0 and 3.
    const expertOwner = Uint16Array.of(0, 0, 1, 1, 2, 2);
    const replicas = [[[2], [], [0, 3]]];
    const sets = [0, 2, 2, 3, 0, 3];
    const trace: RoutingTrace = {
      model: { fingerprint: 'three', layers: 1, experts: 6, topK: 2, vocabularySize: 3 },
      source: 'test',
      labels: ['one'],
      length: 3,
      request: new Int32Array(3),
      position: Int32Array.of(0, 1, 2),
      token: Int32Array.of(0, 1, 2),
      phase: new Uint8Array(3),
      experts: Uint16Array.from(sets),
      weights: undefined,
    };
    const { tokenSaves } = buildPredictionTables(trace, expertOwner, 3, ['token'], { replicas });
    // [id][home]: {0, 2} at device 0 saves 0 and 1; {2, 3} at 0 only part of 1; {0, 3} at 2 saves 0 and 1, neither of them its own.
    const saves = [
      [2, 1, 1],
      [0, 1, 0],
      [1, 1, 2],
    ];
    const average = [0, 1, 2].map((home) => (saves[0]![home]! + saves[1]![home]! + saves[2]![home]!) / 3);
    const expected = saves.flatMap((row) =>
      row.map((saved, home) => Math.round((savesScale * (saved + average[home]!)) / 2)),
    );
    assert.deepEqual([...tokenSaves!], expected);
  });

  it('is kept in plans with copies alone, through the file, and is what the predictor says', async () => {
    const trace = syntheticTrace({
      seed: 4,
      vocabularySize: 40,
      requests: 12,
      tokensPerRequest: 60,
      layers: 2,
      experts: 16,
      topK: 4,
    });
    const plain = await solvePlan(trace, { devices: 4, seed: 1 });
    assert.equal(plain.prediction!.tokenSaves, undefined);
    const plan = await solvePlan(trace, { devices: 4, seed: 1, replicasPerDevice: 2 });
    const read = decodePlan(encodePlan(plan), 'test');
    assert.deepEqual(read, plan);
    const needs = new Uint8Array(4);
    const context = { layer: 1, tokens: 1, tokenIds: Int32Array.of(5), homesBefore: [], routeAhead: assert.fail };
    createTokenPredictor(read).predict(context, needs);
    const row = (plan.vocabularySize + 5) * 4;
    assert.deepEqual(needs, plan.prediction!.tokenSaves!.subarray(row, row + 4));
  });
});
