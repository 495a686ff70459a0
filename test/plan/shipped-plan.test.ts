import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { demoDirectory } from '../../src/cli/model-directory.ts';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { fingerprint } from '../../src/model/fingerprint.ts';
import { assertPlanFits } from '../../src/plan/fit.ts';
import { readPlan } from '../../src/plan/plan-file.ts';

// How it is made: docs/planner.md.
describe('the plan that ships', () => {
  const plan = readPlan(join(demoDirectory, 'plan-4.json'));

  it('is for the model that ships, on four ranks and on two', () => {
    const checkpoint = openCheckpoint(demoDirectory);
    const { layers, experts, topK, vocabularySize } = checkpoint.config;
    const facts = { modelFingerprint: fingerprint(checkpoint), layers, experts, topK, vocabularySize };
    checkpoint.close();
    for (const ranks of [4, 2]) assertPlanFits(plan, { ...facts, ranks });
  });

  it('comes from the default solver and promises what the planner is for, on requests it was not made from', (context) => {
    const { promise, solver, replicas, prediction } = plan;
    const { source, tokens, remoteDevicesPerToken, localActivationRate, loadImbalance } = promise!;
    context.diagnostic(
      `${remoteDevicesPerToken.toFixed(3)} remote devices per token, LAR ${(100 * localActivationRate).toFixed(1)} %, imbalance ${loadImbalance.toFixed(2)}, on ${tokens} tokens of ${source}`,
    );
    assert.equal(solver, 'hypergraph');
    assert.match(source, /held-out requests/);
    // Random placement of 64 experts over 4 devices leaves each token 2.7 of the 3 other devices.
    assert.ok(remoteDevicesPerToken < 0.7 * 2.7);
    assert.ok(loadImbalance <= 1.2);
    for (const field of ['remoteDevicesPerToken', 'localActivationRate', 'loadImbalance'] as const) {
      const mean = promise!.layers.reduce((sum, layer) => sum + layer[field], 0) / plan.layers;
      assert.ok(Math.abs(mean - promise![field]) < 1e-9);
    }
    assert.equal(replicas.flat(2).length, 0);
    assert.equal(prediction!.transitionLookback, 2);
  });
});
