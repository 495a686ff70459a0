/** Steps of few tokens that exchange rows twice a layer: the same bits, fewer messages; and when that is done at all. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { purposes } from '../../src/comm/communicator.ts';
import { type Layout, type RunReport, type ScheduleName, scheduleNames } from '../../src/engine/api.ts';
import { emulatedFigures, mostOneShotTokens, oneShotLimit } from '../../src/engine/exchange-choices.ts';
import { loadTokenizer } from '../../src/model/tokenizer.ts';
import { tinyDirectory } from '../model/fixtures.ts';
import { demoDirectory, randomPlan, request, run, runOnce, withSession, withTables } from './runs.ts';

const tokenizer = loadTokenizer(demoDirectory);
/** One after the other in a step: 9 tokens of prompts, and 3 that are decoded. */
const requests = ['int main(', 'Die Option', 'def read('].map((text, i) =>
  request(tokenizer.encode(text), { maxNewTokens: 3 + i }),
);

test('shipped model: every size of step may go one-shot, with copies and without, compact and plain, and no bit changes', async () => {
  for (const copies of [0, 6]) {
    const plan = await withTables(demoDirectory, randomPlan(demoDirectory, 4, 11, copies), requests);
    const reference = await runOnce(
      demoDirectory,
      { dataParallel: 1, tensorParallel: 1 },
      plan,
      run({ requests, logits: 'all' }),
    );
    for (const tensorParallel of [2, 4]) {
      await withSession(demoDirectory, { dataParallel: 1, tensorParallel }, plan, async (session) => {
        for (const schedule of ['dedup', 'speculative'] as const) {
          for (const compactRows of [false, true]) {
            const name = `tp ${tensorParallel}, ${schedule}, ${copies} copies, compact ${compactRows}`;
            const options = run({ requests, schedule, predictor: 'combined', compactRows, logits: 'all' });
            const ordinary = await session.run({ ...options, oneShotTokens: 0 });
            const mixed = await session.run({ ...options, oneShotTokens: 3 });
            const all = await session.run({ ...options, oneShotTokens: 32 });
            for (const report of [ordinary, mixed, all]) {
              assert.equal(report.logitsSha256, reference.logitsSha256, name);
              assert.equal(report.outputSha256, reference.outputSha256, name);
            }
            assert.ok(all.messages < mixed.messages && mixed.messages < ordinary.messages, name);
            assert.equal(all.bytes.dispatch, 0, name);
            assert.equal(all.oneShotTokens, tensorParallel === 4 ? 16 : 32);
          }
        }
      });
    }
  }
});

test('bytes of a one-shot layer: every partial row of attention, and every partial sum of experts, to every other rank', async () => {
  const layout = { dataParallel: 1, tensorParallel: 4 };
  const plan = randomPlan(demoDirectory, 4, 3);
  const report = await runOnce(
    demoDirectory,
    layout,
    plan,
    run({ requests, schedule: 'dedup', oneShotTokens: 64, compactRows: false, recordRouting: true }),
  );
  const { routing, trace } = report;
  const hiddenBytes = 256 * 4;
  const { layers, experts } = plan;
  const topK = plan.topK;
  const rows = trace!.length;
  let sums = 0;
  for (let token = 0; token < rows; token++) {
    for (let layer = 0; layer < layers; layer++) {
      const ranks = new Set<number>();
      for (let i = 0; i < topK; i++) {
        const expert = trace!.experts[(token * layers + layer) * topK + i]!;
        ranks.add(plan.expertOwner[layer * experts + expert]!);
      }
      sums += ranks.size;
    }
  }
  assert.ok(routing !== undefined);
  assert.equal(report.bytes.combine, sums * 3 * hiddenBytes);
  const partials = rows * layers * 4 * 3 * hiddenBytes;
  assert.ok(report.bytes.attention >= partials && report.bytes.attention < partials * 1.01);
});

async function limits(
  layout: Layout,
  oneShotTokens: number | undefined,
): Promise<Partial<Record<ScheduleName, number>>> {
  const directory = tinyDirectory('qwen3_moe');
  const plan = randomPlan(directory, 4, 1);
  const found: Partial<Record<ScheduleName, number>> = {};
  await withSession(
    directory,
    layout,
    plan,
    async (session) => {
      for (const schedule of scheduleNames) {
        const asked = oneShotTokens === undefined ? {} : { oneShotTokens };
        const placement = Int32Array.of(0);
        const options = run({ requests: [request([1, 2, 3])], schedule, predictor: 'pregate', placement, ...asked });
        found[schedule] = (await session.run(options)).oneShotTokens;
      }
    },
    { maximumStepTokens: 64 },
  );
  return found;
}

test('only schedules that deduplicate go one-shot, on tensor ranks alone, and no step longer than a slice of the longest', async () => {
  const none = { 'deepspeed-moe': 0, alltoallv: 0, dedup: 0, speculative: 0 };
  assert.deepEqual(await limits({ dataParallel: 1, tensorParallel: 4 }, 8), { ...none, dedup: 8, speculative: 8 });
  assert.deepEqual(await limits({ dataParallel: 1, tensorParallel: 4 }, 100), { ...none, dedup: 16, speculative: 16 });
  assert.deepEqual(await limits({ dataParallel: 1, tensorParallel: 4 }, undefined), { ...none, speculative: 16 });
  assert.deepEqual(await limits({ dataParallel: 2, tensorParallel: 2 }, 8), none);
  assert.deepEqual(await limits({ dataParallel: 4, tensorParallel: 1 }, 8), none);
});

test('counters of routing are those of slices by index', async () => {
  const layout = { dataParallel: 1, tensorParallel: 2 };
  const plan = randomPlan(demoDirectory, 2, 5);
  const figures = (report: RunReport): object => ({
    rate: report.localActivationRate,
    remote: report.remoteDevicesPerToken,
    experts: [...report.trace!.experts],
  });
  const options = run({ requests, schedule: 'dedup', recordRouting: true });
  const ordinary = await runOnce(demoDirectory, layout, plan, { ...options, oneShotTokens: 0 });
  const oneShot = await runOnce(demoDirectory, layout, plan, { ...options, oneShotTokens: 64 });
  assert.deepEqual(figures(oneShot), figures(ordinary));
  assert.ok(purposes.every((purpose) => oneShot.bytes[purpose] >= 0));
});

const fourHosts = { ranks: 4, ranksPerHost: 1, hiddenSize: 256 };
const link = (megabits: number, latencyMs: number): ReturnType<typeof emulatedFigures> =>
  emulatedFigures({ bytesPerSecond: megabits * 125_000, latencyMs, ranksPerNode: 1 });

test('how long steps may be: what was measured to be fastest on the networks of docs/one-shot.md', () => {
  assert.equal(oneShotLimit(emulatedFigures(undefined), { ...fourHosts, ranksPerHost: 4 }), mostOneShotTokens);
  assert.equal(oneShotLimit(link(1000, 0), fourHosts), 7);
  assert.equal(oneShotLimit(link(100, 0), fourHosts), 1);
  const twoNodes = { ...fourHosts, ranksPerHost: 2 };
  assert.equal(oneShotLimit(link(100, 0.15), twoNodes), 2);
  assert.ok(oneShotLimit(link(1000, 0.15), twoNodes) >= 8);
});

test('a single token always goes one-shot; slower links and longer rows allow fewer tokens, costlier exchanges more', () => {
  let before = mostOneShotTokens;
  for (const megabits of [100_000, 10_000, 1000, 300, 100, 10, 1]) {
    const tokens = oneShotLimit(link(megabits, 0.05), fourHosts);
    assert.ok(tokens >= 1 && tokens <= before, `${megabits} Mbit/s`);
    assert.ok(oneShotLimit(link(megabits, 0.05), { ...fourHosts, hiddenSize: 4096 }) <= tokens);
    assert.ok(oneShotLimit(link(megabits, 1), fourHosts) >= tokens);
    before = tokens;
  }
});
