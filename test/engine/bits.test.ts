import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { overlapNames, scheduleNames } from '../../src/engine/api.ts';
import { loadTokenizer } from '../../src/model/tokenizer.ts';
import { predictorNames } from '../../src/plan/plan.ts';
import type { Session } from '../../src/engine/api.ts';
import { readGolden, tinyDirectory, tinyFamilies } from '../model/fixtures.ts';
import { demoDirectory, layouts, randomPlan, request, run, runOnce, withSession, withTables } from './runs.ts';

const oneRank = { dataParallel: 1, tensorParallel: 1 };

test('shipped model: the same logits, bit for bit, under every layout, schedule and predictor', async () => {
  const tokenizer = loadTokenizer(demoDirectory);
  const texts = [
    'static int __init smoe_init(void)\n{\n\t',
    'Die Option legt fest, ob',
    'def read(self, size=-1):\n    """Read',
  ];
  const requests = texts.map((text, i) => request(tokenizer.encode(text), { maxNewTokens: 2 + i }));
  const plan = await withTables(demoDirectory, randomPlan(demoDirectory, 4, 7), requests);
  const reference = await runOnce(demoDirectory, oneRank, plan, run({ requests, logits: 'all' }));
  for (const layout of layouts) {
    const name = `${layout.dataParallel}x${layout.tensorParallel}`;
    await withSession(demoDirectory, layout, plan, async (session) => {
      for (const schedule of scheduleNames) {
        for (const predictor of schedule === 'speculative' ? predictorNames : (['token'] as const)) {
          const report = await session.run(run({ requests, schedule, predictor, logits: 'all' }));
          assert.equal(report.logitsSha256, reference.logitsSha256, `${name} ${schedule} ${predictor}`);
          assert.equal(report.outputSha256, reference.outputSha256);
        }
      }
    });
  }
});

for (const family of tinyFamilies) {
  test(`${family}: random prompts, plans with replicas, layouts, schedules and step sizes change no bit`, async () => {
    const directory = tinyDirectory(family);
    const { vocabularySize } = readGolden(family);
    const prompt = fc.array(fc.nat(vocabularySize - 1), { minLength: 1, maxLength: 40 });
    const property = fc.asyncProperty(
      fc.array(prompt, { minLength: 1, maxLength: 5 }),
      fc.constantFrom(...layouts),
      fc.constantFrom(...scheduleNames),
      fc.constantFrom('random' as const, 'pregate' as const),
      fc.integer({ min: 1, max: 1000 }),
      fc.integer({ min: 0, max: 3 }),
      fc.constantFrom(1, 5, 64),
      fc.subarray([...overlapNames]),
      fc.boolean(),
      fc.constantFrom(0, 1, 64),
      async (
        ...[prompts, layout, schedule, predictor, seed, copies, maximumStepTokens, overlap, compactRows, oneShotTokens]
      ) => {
        const plan = randomPlan(directory, 4, seed, copies);
        const requests = prompts.map((tokens) => request(tokens, { maxNewTokens: 3 }));
        const placement = Int32Array.from(requests, (_, i) => (i * seed) % layout.dataParallel);
        const reference = await runOnce(directory, oneRank, plan, run({ requests, logits: 'all' }));
        const exchange = { overlap, compactRows, oneShotTokens };
        const options = run({ requests, schedule, predictor, placement, ...exchange, logits: 'all' });
        const report = await runOnce(directory, layout, plan, options, { maximumStepTokens });
        assert.equal(report.logitsSha256, reference.logitsSha256);
        assert.equal(report.outputSha256, reference.outputSha256);
      },
    );
    await fc.assert(property, { numRuns: 15, seed: 42 });
  });
}

test('no way of overlapping changes a bit', async () => {
  const directory = tinyDirectory('qwen3_moe');
  const plan = randomPlan(directory, 4, 5);
  const requests = [150, 25, 133].map((length, i) =>
    request(Array.from({ length }, (_, j) => (i * 97 + j * 31) % 320)),
  );
  const reference = await runOnce(directory, oneRank, plan, run({ requests, logits: 'all' }));
  for (const layout of layouts) {
    const use = async (session: Session): Promise<void> => {
      for (const schedule of scheduleNames) {
        const placement = Int32Array.from(requests, () => 0);
        const options = run({
          requests,
          schedule,
          placement,
          predictor: 'pregate',
          logits: 'all',
          microbatchTokens: 32,
        });
        const messages: number[] = [];
        for (const overlap of [[], ['prepare'], ['gather', 'prepare'], ['microbatch'], overlapNames] as const) {
          const report = await session.run({ ...options, overlap });
          assert.equal(report.logitsSha256, reference.logitsSha256, `${schedule}, ${overlap.join()}`);
          messages.push(report.messages);
        }
        const [none, prepared, gathered, halves, all] = messages;
        assert.equal(prepared, none);
        if (layout.tensorParallel > 1) assert.ok(gathered! > none! && all! > halves!);
        if (layout.tensorParallel * layout.dataParallel > 1) assert.ok(halves! > none!);
        for (const overlap of [[], overlapNames] as const) {
          const compact = await session.run({ ...options, overlap, compactRows: true });
          assert.equal(compact.logitsSha256, reference.logitsSha256, `${schedule}, ${overlap.join()}, compact rows`);
          assert.equal(compact.messages, overlap.length === 0 ? none : all);
        }
      }
    };
    await withSession(directory, layout, plan, use, { maximumStepTokens: 300 });
  }
});

test('compact rows take fewer bytes under dedup and speculative, the same bits in the same messages', async () => {
  const tokenizer = loadTokenizer(demoDirectory);
  const requests = [request(tokenizer.encode('Die Option legt fest, ob die Datei gelesen wird.'), { maxNewTokens: 4 })];
  const plan = await withTables(demoDirectory, randomPlan(demoDirectory, 4, 7, 4), requests);
  for (const layout of layouts) {
    const ranks = layout.dataParallel * layout.tensorParallel;
    await withSession(demoDirectory, layout, plan, async (session) => {
      for (const schedule of scheduleNames) {
        const both = { requests, schedule, predictor: 'pregate', logits: 'all' } as const;
        const plain = await session.run(run({ ...both, compactRows: false }));
        const compact = await session.run(run({ ...both, compactRows: true }));
        assert.equal(compact.logitsSha256, plain.logitsSha256);
        assert.equal(compact.messages, plain.messages);
        assert.equal(plain.compactRows, false);
        const able = schedule === 'dedup' || schedule === 'speculative';
        assert.equal(compact.compactRows, able);
        for (const purpose of ['dispatch', 'combine', 'attention'] as const) {
          const [before, after] = [plain.bytes[purpose], compact.bytes[purpose]];
          // Hidden rows lose 14 to 16 of a hundred bytes here; layers of fewer ranks than two send nothing.
          if (able && before > 0)
            assert.ok(after < 0.87 * before && after > 0.84 * before, `${purpose}: ${after} of ${before}`);
          else assert.equal(after, before);
        }
        if (ranks === 1) assert.equal(plain.bytes.total, 0);
      }
    });
  }
});

test('a plan of eight devices gives the same bits on eight, four, two and one ranks', async () => {
  const directory = tinyDirectory('qwen3_moe');
  const plan = randomPlan(directory, 8, 3, 1);
  const requests = [request([5, 6, 7, 8, 9, 10, 11]), request([100, 3])];
  const reference = await runOnce(directory, oneRank, plan, run({ requests, logits: 'all' }));
  for (const [dataParallel, tensorParallel] of [
    [8, 1],
    [4, 2],
    [2, 4],
    [4, 1],
    [1, 2],
  ] as const) {
    for (const schedule of ['alltoallv', 'speculative'] as const) {
      const placement = Int32Array.of(0, 1 % dataParallel);
      const options = run({ requests, schedule, placement, compactRows: true, logits: 'all' });
      const report = await runOnce(directory, { dataParallel, tensorParallel }, plan, options);
      assert.equal(report.logitsSha256, reference.logitsSha256, `${dataParallel}x${tensorParallel} ${schedule}`);
    }
  }
});
