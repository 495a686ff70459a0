import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadTokenizer } from '../../src/model/tokenizer.ts';
import { demoDirectory, randomPlan, request, run, runOnce } from './runs.ts';

test('threads that share the work of a rank change no bit', async () => {
  const tokenizer = loadTokenizer(demoDirectory);
  const text = readFileSync(join(demoDirectory, 'heldout', 'evaluation.jsonl'), 'utf8').split('\n', 1)[0]!;
  const tokens = tokenizer.encode((JSON.parse(text) as { text: string }).text).slice(0, 150);
  const requests = [request(tokens, { maxNewTokens: 3 }), request(tokens.slice(0, 9), { maxNewTokens: 5 })];
  const plan = randomPlan(demoDirectory, 2, 3);
  const options = run({ requests, logits: 'all' });
  const sizes = { maximumStepTokens: 128 };
  const reference = await runOnce(demoDirectory, { dataParallel: 1, tensorParallel: 1 }, plan, options, sizes);
  for (const [tensorParallel, threadsPerRank] of [
    [1, 2],
    [1, 3],
    [2, 2],
  ] as const) {
    const layout = { dataParallel: 1, tensorParallel };
    const report = await runOnce(demoDirectory, layout, plan, options, { ...sizes, threadsPerRank });
    assert.equal(report.logitsSha256, reference.logitsSha256, `${tensorParallel} ranks of ${threadsPerRank} threads`);
    assert.equal(report.outputSha256, reference.outputSha256);
  }
});
