/** When rows travel compact, and when nothing can be made of asking for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LinkSettings } from '../../src/comm/link-model.ts';
import { type ScheduleName, scheduleNames } from '../../src/engine/api.ts';
import { openSession } from '../../src/engine/session.ts';
import { tinyDirectory } from '../model/fixtures.ts';
import { randomPlan, request, run } from './runs.ts';

const directory = tinyDirectory('qwen3_moe');
const requests = [request([1, 2, 3, 4])];

/** Schedules whose rows were compact in a session with such links. */
async function compactOver(link: LinkSettings | undefined, compactRows?: boolean): Promise<ScheduleName[]> {
  const session = await openSession({
    ...{ modelDirectory: directory, layout: { dataParallel: 1, tensorParallel: 2 }, plan: randomPlan(directory, 2, 1) },
    ...{ transport: 'threads', maximumStepTokens: 16, cachePositions: 64 },
    ...(link === undefined ? {} : { link }),
  });
  try {
    const compact: ScheduleName[] = [];
    for (const schedule of scheduleNames) {
      const chosen = compactRows === undefined ? {} : { compactRows };
      const report = await session.run(run({ requests, schedule, predictor: 'pregate', ...chosen }));
      if (report.compactRows) compact.push(schedule);
    }
    return compact;
  } finally {
    await session.close();
  }
}

const linkOf = (bytesPerSecond: number | null): LinkSettings => ({ bytesPerSecond, latencyMs: 0, ranksPerNode: 1 });

test('by default speculative sends compact rows, over links that are not fast', async () => {
  assert.deepEqual(await compactOver(undefined), []);
  assert.deepEqual(await compactOver(linkOf(125e6)), ['speculative']);
  assert.deepEqual(await compactOver(linkOf(1250e6)), []);
  assert.deepEqual(await compactOver(linkOf(null)), []);
});

test('when asked for, dedup does too, and in memory; schedules without deduplication never do', async () => {
  assert.deepEqual(await compactOver(undefined, true), ['dedup', 'speculative']);
  assert.deepEqual(await compactOver(linkOf(125e6), false), []);
});
