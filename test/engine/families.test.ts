import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readGolden, tinyDirectory, tinyFamilies } from '../model/fixtures.ts';
import { randomPlan, request, run, runOnce } from './runs.ts';

for (const family of tinyFamilies) {
  test(`${family}: logits, router choices and greedy tokens of transformers in float32`, async () => {
    const directory = tinyDirectory(family);
    const golden = readGolden(family);
    const requests = golden.prompts.map(({ tokens, greedy }) => request(tokens, { maxNewTokens: greedy.length }));
    const report = await runOnce(
      directory,
      { dataParallel: 1, tensorParallel: 1 },
      randomPlan(directory, 4, 1),
      run({ requests, logits: 'all', recordRouting: true }),
    );
    assert.deepEqual(
      report.outputs.map((output) => output.tokens),
      golden.prompts.map((prompt) => prompt.greedy),
    );
    const { vocabularySize } = golden;
    let goldenRow = 0;
    let worst = 0;
    golden.prompts.forEach((prompt, index) => {
      prompt.tokens.forEach((_, position) => {
        const row = report.logitsRows.findIndex((kept) => kept.request === index && kept.position === position);
        for (let id = 0; id < vocabularySize; id++) {
          const expected = golden.logits[goldenRow * vocabularySize + id]!;
          worst = Math.max(worst, Math.abs(report.logits![row * vocabularySize + id]! - expected));
        }
        goldenRow++;
        prompt.routing.forEach(({ experts }, layer) => {
          const { topK, layers } = report.trace!.model;
          const traceRow = report.trace!.request.findIndex(
            (r, i) => r === index && report.trace!.position[i] === position,
          );
          const start = (traceRow * layers + layer) * topK;
          assert.deepEqual([...report.trace!.experts.subarray(start, start + topK)], experts[position]);
        });
      });
    });
    assert.ok(worst <= 1e-4, `largest logit difference ${worst}`);
  });
}
