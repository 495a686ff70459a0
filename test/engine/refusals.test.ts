import assert from 'node:assert/strict';
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Layout } from '../../src/engine/api.ts';
import { openSession } from '../../src/engine/session.ts';
import type { Plan } from '../../src/plan/plan.ts';
import { copyTiny, smoeError, tinyDirectory } from '../model/fixtures.ts';
import { randomPlan, request, run, withSession } from './runs.ts';

const directory = tinyDirectory('qwen3_moe');
const plan = randomPlan(directory, 4, 1);

async function refuses(
  code: string,
  modelDirectory: string,
  layout: Layout,
  refusedPlan: Plan,
  ...parts: string[]
): Promise<void> {
  const start = performance.now();
  const opening = openSession({
    modelDirectory,
    layout,
    plan: refusedPlan,
    transport: 'threads',
    maximumStepTokens: 16,
    cachePositions: 64,
  });
  await assert.rejects(opening, smoeError(code, ...parts));
  assert.ok(performance.now() - start < 1000);
}

test('layouts that do not fit the model', async () => {
  await refuses('LAYOUT_UNSUPPORTED', directory, { dataParallel: 1, tensorParallel: 3 }, plan, 'tp = 3');
  await refuses('LAYOUT_UNSUPPORTED', directory, { dataParallel: 1, tensorParallel: 8 }, plan, '4 attention heads');
  await refuses('LAYOUT_UNSUPPORTED', directory, { dataParallel: 32, tensorParallel: 1 }, plan, '16 experts');
  await refuses('LAYOUT_UNSUPPORTED', directory, { dataParallel: 0, tensorParallel: 1 }, plan, 'dp = 0');
});

test('plans of another model or layout', async () => {
  const layout = { dataParallel: 1, tensorParallel: 2 };
  await refuses('PLAN_OTHER_MODEL', directory, layout, randomPlan(tinyDirectory('olmoe'), 4, 1));
  await refuses(
    'PLAN_OTHER_MODEL',
    directory,
    layout,
    { ...plan, modelFingerprint: '0123456789abcdef' },
    'modelFingerprint',
  );
  await refuses('PLAN_LAYOUT', directory, { dataParallel: 8, tensorParallel: 1 }, plan, '4 devices', '8 ranks');
  await refuses('PLAN_LAYOUT', directory, { dataParallel: 3, tensorParallel: 1 }, plan, '3 ranks');
});

test('a damaged checkpoint', async (context) => {
  const damaged = copyTiny(context, 'qwen3_moe');
  truncateSync(join(damaged, 'model.safetensors'), 100_000);
  await refuses('CHECKPOINT_TRUNCATED', damaged, { dataParallel: 1, tensorParallel: 2 }, plan, 'model.safetensors');
});

test('requests that cannot be served leave the session usable', async () => {
  await withSession(directory, { dataParallel: 1, tensorParallel: 2 }, plan, async (session) => {
    const refused = (tokens: number[], code: string, maxNewTokens = 1): Promise<void> =>
      assert.rejects(session.run(run({ requests: [request(tokens, { maxNewTokens })] })), smoeError(code, 'request 0'));
    await refused([], 'PROMPT_EMPTY');
    await refused([1, 999_999], 'PROMPT_TOKEN');
    await refused([1], 'REQUEST_LENGTH', 0);
    await refused(
      Array.from({ length: 5000 }, () => 1),
      'PROMPT_TOO_LONG',
    );
    const report = await session.run(run({ requests: [request([1, 2])] }));
    assert.equal(report.outputs[0]!.tokens.length, 4);
  });
});

test('prediction from tables that the plan lacks names what to do', async () => {
  await withSession(directory, { dataParallel: 1, tensorParallel: 2 }, plan, async (session) => {
    const running = session.run(run({ requests: [request([1, 2])], schedule: 'speculative', predictor: 'token' }));
    await assert.rejects(running, smoeError('PLAN_NO_TABLES'));
  });
});
