import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import type { Plan } from '../../src/plan/plan.ts';
import { predictorNames } from '../../src/plan/plan.ts';
import { solvePlan } from '../../src/plan/solve.ts';
import { routeAhead } from '../../src/kernels/reference.ts';
import { createPredictor } from '../../src/predict/index.ts';
import { RequestPlacer } from '../../src/predict/placement.ts';
import type { PredictionContext } from '../../src/predict/predictor.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

const trace = syntheticTrace({
  layers: 2,
  experts: 16,
  topK: 4,
  vocabularySize: 100,
  requests: 20,
  tokensPerRequest: 60,
  seed: 8,
  structure: 2,
});
const tokens = 40;

describe('predictors', () => {
  let plan: Plan;
  before(async () => {
    plan = await solvePlan(trace, { devices: 4 });
  });

  const ownersOf = (layer: number): Uint16Array => plan.expertOwner.slice(layer * 16, (layer + 1) * 16);
  /** [4][16] without copies. */
  const heldBy = (owners: Uint16Array): Uint8Array =>
    Uint8Array.from({ length: 4 * 16 }, (_, i) => (owners[i % 16] === Math.floor(i / 16) ? 1 : 0));

  /** Logits that put the row's true experts first. */
  function contextOf(layer: number): PredictionContext {
    const logits = new Float32Array(tokens * 16).fill(-1);
    for (let row = 0; row < tokens; row++) {
      for (let i = 0; i < 4; i++) logits[row * 16 + trace.experts[(row * 2 + layer) * 4 + i]!] = 2;
    }
    const homes = new Int16Array(tokens).fill(layer === 0 ? -1 : 1);
    return {
      layer,
      tokens,
      tokenIds: trace.token.slice(0, tokens),
      homesBefore: [homes, new Int16Array(tokens).fill(-1), new Int16Array(tokens).fill(-1)],
      routeAhead: (doubt, needs) =>
        routeAhead(logits, tokens, 4, doubt, ownersOf(layer), 4, heldBy(ownersOf(layer)), 4, 255, needs),
    };
  }

  for (const name of predictorNames) {
    it(`${name} gives the same needs every time`, () => {
      for (const layer of [0, 1]) {
        const needs = new Uint8Array(tokens * 4).fill(7);
        createPredictor(name, plan).predict(contextOf(layer), needs);
        const again = new Uint8Array(tokens * 4);
        createPredictor(name, plan).predict(contextOf(layer), again);
        assert.deepEqual(again, needs);
      }
    });
  }

  it('the pregate finds exactly the devices of clear-cut logits', () => {
    const needs = new Uint8Array(tokens * 4);
    createPredictor('pregate', plan).predict(contextOf(1), needs);
    for (let row = 0; row < tokens; row++) {
      const owners = new Set(
        Array.from(trace.experts.subarray(row * 8 + 4, row * 8 + 8), (expert) => plan.expertOwner[16 + expert]),
      );
      for (let device = 0; device < 4; device++) assert.equal(needs[row * 4 + device], owners.has(device) ? 255 : 0);
    }
  });

  it('the pregate copes with equal logits', () => {
    const owners = ownersOf(1);
    const needs = new Uint8Array(tokens * 4);
    createPredictor('pregate', plan).predict(
      {
        ...contextOf(1),
        routeAhead: (doubt, out) =>
          routeAhead(new Float32Array(tokens * 16), tokens, 4, doubt, owners, 4, heldBy(owners), 4, 255, out),
      },
      needs,
    );
    assert.ok(needs.every((value) => value === 255));
  });

  it('table predictors say so when the plan holds no tables', () => {
    const bare = { ...plan, prediction: undefined };
    assert.throws(() => createPredictor('token', bare), { code: 'PLAN_NO_TABLES' });
    createPredictor('pregate', bare);
  });

  it('random guesses differ by seed and layer', () => {
    const guess = (seed: number, layer: number): string => {
      const needs = new Uint8Array(tokens * 4);
      createPredictor('random', plan, { seed }).predict(contextOf(layer), needs);
      return needs.join();
    };
    assert.equal(new Set([guess(1, 0), guess(1, 1), guess(2, 0)]).size, 3);
  });

  it('places each round of requests on every rank once, by the highest score left', () => {
    const placer = new RequestPlacer(plan, 2);
    const prompts = Array.from({ length: 8 }, (_, request) => trace.token.slice(request * 60, request * 60 + 60));
    const placed = prompts.map((prompt) => placer.place(prompt));
    for (let round = 0; round < 4; round++) {
      assert.deepEqual([placed[2 * round]!, placed[2 * round + 1]!].sort(), [0, 1]);
      const score = placer.score(prompts[2 * round]!);
      assert.ok(score[placed[2 * round]!]! >= score[placed[2 * round + 1]!]!);
    }
    assert.deepEqual([...placer.score(new Int32Array())], [0, 0]);
  });
});
