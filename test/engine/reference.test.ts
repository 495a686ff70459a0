import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadTokenizer } from '../../src/model/tokenizer.ts';
import { demoDirectory, randomPlan, request, run, runOnce } from './runs.ts';

interface Reference {
  positions: number;
  columns: number[];
  rows: { position: number }[];
  prompts: { id: string; line: number; firstPosition: number; tokens: number[]; greedy: number[] }[];
}

const folder = join(demoDirectory, 'reference');
const reference = JSON.parse(readFileSync(join(folder, 'reference.json'), 'utf8')) as Reference;
const bytesOf = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(join(folder, name)));
const floatsOf = (name: string): Float32Array => new Float32Array(bytesOf(name).buffer);

/** A reference whose router is this close to a tie may rightly choose otherwise; such positions are set aside. */
const tie = 1e-5;

test('shipped model against transformers in float32: logits, router choices, greedy continuations', async () => {
  const greedyLength = reference.prompts[0]!.greedy.length;
  const requests = reference.prompts.map(({ tokens }) => request(tokens, { maxNewTokens: greedyLength }));
  const report = await runOnce(
    demoDirectory,
    { dataParallel: 2, tensorParallel: 1 },
    randomPlan(demoDirectory, 4, 2),
    run({ requests, logits: 'all', recordRouting: true }),
    { maximumStepTokens: 256, cachePositions: 8192 },
  );
  report.outputs.forEach((output, i) =>
    assert.deepEqual(output.tokens, reference.prompts[i]!.greedy, reference.prompts[i]!.id),
  );

  const { vocabularySize, layers, topK } = report.trace!.model;
  const [columnLogits, topLogits, rowLogits, gaps] = [
    'column-logits.f32',
    'top-logits.f32',
    'rows.f32',
    'score-gaps.f32',
  ].map(floatsOf);
  const topIds = new Uint16Array(bytesOf('top-ids.u16').buffer);
  const experts = bytesOf('experts.u8');
  const perPosition = { columns: reference.columns.length, top: topIds.length / reference.positions };
  let worst = 0;
  let compared = 0;
  let setAside = 0;
  reference.prompts.forEach((prompt, index) => {
    const logitsStart = report.logitsRows.findIndex((row) => row.request === index);
    const traceStart = report.trace!.request.indexOf(index);
    prompt.tokens.forEach((_, i) => {
      const position = prompt.firstPosition + i;
      if (gaps![position]! < tie) {
        setAside++;
        return;
      }
      compared++;
      const logit = (id: number): number => report.logits![(logitsStart + i) * vocabularySize + id]!;
      const check = (id: number, expected: number): void =>
        void (worst = Math.max(worst, Math.abs(logit(id) - expected)));
      reference.columns.forEach((id, c) => check(id, columnLogits![position * perPosition.columns + c]!));
      for (let t = 0; t < perPosition.top; t++) {
        const entry = position * perPosition.top + t;
        check(topIds[entry]!, topLogits![entry]!);
      }
      reference.rows.forEach((row, r) => {
        if (row.position !== position) return;
        for (let id = 0; id < vocabularySize; id++) check(id, rowLogits![r * vocabularySize + id]!);
      });
      const own = report.trace!.experts.subarray(
        (traceStart + i) * layers * topK,
        (traceStart + i + 1) * layers * topK,
      );
      assert.deepEqual([...own], [...experts.subarray(position * layers * topK, (position + 1) * layers * topK)]);
    });
  });
  assert.ok(compared >= 2000, `${compared} positions compared, ${setAside} set aside`);
  assert.ok(worst <= 1e-4, `largest logit difference ${worst} over ${compared} positions`);
});

test('the tokenizer gives the reference’s ids', () => {
  const tokenizer = loadTokenizer(demoDirectory);
  const lines = readFileSync(join(demoDirectory, 'heldout/evaluation.jsonl'), 'utf8').split('\n');
  for (const { id, line, tokens } of reference.prompts) {
    const piece = JSON.parse(lines[line]!) as { id: string; text: string };
    assert.equal(piece.id, id);
    assert.deepEqual([...tokenizer.encode(piece.text).subarray(0, tokens.length)], tokens);
  }
});
