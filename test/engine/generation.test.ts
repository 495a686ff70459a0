import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TokenEvent } from '../../src/engine/api.ts';
import { loadTokenizer } from '../../src/model/tokenizer.ts';
import { tinyDirectory } from '../model/fixtures.ts';
import { demoDirectory, layouts, randomPlan, request, run, runOnce, withSession } from './runs.ts';

const directory = tinyDirectory('qwen3_moe');
const plan = randomPlan(directory, 4, 11);
const oneRank = { dataParallel: 1, tensorParallel: 1 };
const prompts = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [200], [40, 41, 42]];

test('waiting for cache room changes no bit', async () => {
  const requests = prompts.map((tokens) => request(tokens, { maxNewTokens: 6 }));
  const roomy = await runOnce(directory, oneRank, plan, run({ requests, logits: 'all' }));
  const tight = await runOnce(directory, oneRank, plan, run({ requests, logits: 'all' }), {
    cachePositions: 32,
    maximumStepTokens: 4,
  });
  assert.equal(tight.logitsSha256, roomy.logitsSha256);
  assert.ok(tight.steps.length > roomy.steps.length);
});

test('seeded sampling draws the same tokens in every layout, and others with another seed', async () => {
  const sampled = (seed: number): ReturnType<typeof request>[] =>
    prompts.map((tokens) =>
      request(tokens, { maxNewTokens: 8, sampling: { temperature: 0.9, topP: 0.95, topK: 50, seed } }),
    );
  const first = await runOnce(directory, oneRank, plan, run({ requests: sampled(1) }));
  for (const layout of layouts) {
    const again = await runOnce(directory, layout, plan, run({ requests: sampled(1), schedule: 'alltoallv' }));
    assert.equal(again.outputSha256, first.outputSha256);
  }
  const other = await runOnce(directory, oneRank, plan, run({ requests: sampled(2) }));
  assert.notEqual(other.outputSha256, first.outputSha256);
  const narrow = prompts.map((tokens) =>
    request(tokens, { maxNewTokens: 8, sampling: { temperature: 5, topP: 1, topK: 1, seed: 3 } }),
  );
  const greedy = await runOnce(
    directory,
    oneRank,
    plan,
    run({ requests: prompts.map((tokens) => request(tokens, { maxNewTokens: 8 })) }),
  );
  assert.equal((await runOnce(directory, oneRank, plan, run({ requests: narrow }))).outputSha256, greedy.outputSha256);
});

test('generation ends at stop strings and end tokens', async () => {
  const tokenizer = loadTokenizer(demoDirectory);
  const demoPlan = randomPlan(demoDirectory, 2, 1);
  const tokens = tokenizer.encode('#include <stdio.h>\n#include <stdlib.h>\n#include <');
  const layout = { dataParallel: 1, tensorParallel: 2 };
  await withSession(demoDirectory, layout, demoPlan, async (session) => {
    const free = await session.run(run({ requests: [request(tokens, { maxNewTokens: 24 })] }));
    const text = tokenizer.decode(free.outputs[0]!.tokens);
    const stop = text.slice(8, 11);
    const stopped = await session.run(run({ requests: [request(tokens, { maxNewTokens: 24, stopStrings: [stop] })] }));
    const { finishReason, tokens: stoppedTokens } = stopped.outputs[0]!;
    assert.equal(finishReason, 'stop');
    assert.ok(stoppedTokens.length < free.outputs[0]!.tokens.length);
    assert.ok(tokenizer.decode(stoppedTokens).includes(stop));
    assert.ok(!tokenizer.decode(stoppedTokens.slice(0, -1)).includes(stop));
  });
});

test('tokens stream in order, with the whole step’s figures', async () => {
  const events: TokenEvent[] = [];
  const requests = prompts.map((tokens) => request(tokens, { maxNewTokens: 5 }));
  const layout = { dataParallel: 2, tensorParallel: 2 };
  const report = await runOnce(directory, layout, plan, run({ requests, onToken: (event) => events.push(event) }));
  report.outputs.forEach((output, index) => {
    const own = events.filter((event) => event.request === index);
    assert.deepEqual(
      own.map((event) => event.token),
      output.tokens,
    );
    assert.deepEqual(
      own.map((event) => event.index),
      output.tokens.map((_, i) => i),
    );
    assert.equal(own.at(-1)!.finishReason, 'length');
  });
  assert.equal(
    report.steps.reduce((sum, step) => sum + step.bytes.dispatch, 0),
    report.bytes.dispatch,
  );
  assert.equal(
    report.steps.reduce((sum, step) => sum + step.tokens, 0),
    prompts.flat().length + prompts.length * 4,
  );
});

test('an interrupted run ends every rank with code INTERRUPTED', async () => {
  const controller = new AbortController();
  const requests = [request([1, 2, 3], { maxNewTokens: 200 })];
  await withSession(directory, { dataParallel: 1, tensorParallel: 4 }, plan, async (session) => {
    const running = session.run(run({ requests, signal: controller.signal, onToken: () => controller.abort() }));
    await assert.rejects(running, { code: 'INTERRUPTED', exitStatus: 130 });
  });
});
