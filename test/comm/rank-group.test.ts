import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { it } from 'node:test';
import { promisify } from 'node:util';
import { launchRanks, type LaunchOptions, type RankGroup } from '../../src/comm/rank-group.ts';
import { conformanceEntry } from './conformance.ts';
import type { ConformanceJob } from './conformance-rank.ts';

function launch(options: Partial<LaunchOptions<string>>): Promise<RankGroup<ConformanceJob, unknown>> {
  return launchRanks({ size: 2, entry: conformanceEntry, ...options });
}

/** Starts a job that only a terminated worker ends, runs `end`, and returns within how many ms `run` rejected. */
async function timeToReject(scenario: string, code: string, end: (controls: AbortController) => void): Promise<number> {
  const group = await launch({});
  const controller = new AbortController();
  let ended = 0;
  setTimeout(() => {
    ended = performance.now();
    end(controller);
  }, 50);
  await assert.rejects(group.run({ scenario }, { signal: controller.signal }), { code });
  const elapsed = performance.now() - ended;
  await assert.rejects(group.run({ scenario: 'events' }), { code });
  await group.close();
  return elapsed;
}

it('rejects with the error of the rank that fails at the start', async () => {
  await assert.rejects(launch({ size: 3, data: 'fail at start' }), {
    code: 'TEST_START',
    message: 'rank 2: no start today',
  });
});

it('rejects an entry that is missing or exports no createRank', async () => {
  await assert.rejects(launch({ entry: new URL('./missing.js', import.meta.url) }), /rank [01]: .*missing\.js/);
  await assert.rejects(launch({ entry: new URL('data:text/javascript,export default 1') }), {
    code: 'RANK_ENTRY',
  });
});

it('refuses impossible numbers of ranks and data that cannot be sent', async () => {
  for (const size of [0, 65, 1.5]) await assert.rejects(launch({ size }), { code: 'RANK_COUNT', exitStatus: 2 });
  await assert.rejects(launch({ data: () => undefined }), { code: 'RANK_START' });
});

it('runs a job of its own on every rank, one run at a time', async () => {
  const group = await launch({});
  const first = group.runEach([{ scenario: 'events' }, { scenario: 'events' }]);
  await assert.rejects(group.run({ scenario: 'events' }), { code: 'RANK_GROUP_BUSY' });
  assert.deepEqual(await first, [0, 1]);
  await assert.rejects(group.runEach([{ scenario: 'events' }]), { code: 'RANK_COUNT' });
  await group.close();
  await group.close();
  await assert.rejects(group.run({ scenario: 'events' }), { code: 'RANK_GROUP_CLOSED' });
});

it('interrupts ranks that compute and ranks that wait, within a second', async () => {
  for (const scenario of ['spinning', 'waitingForEver']) {
    const elapsed = await timeToReject(scenario, 'INTERRUPTED', (controller) => controller.abort());
    assert.ok(elapsed < 1000, `${scenario}: ${elapsed} ms`);
  }
  const group = await launch({});
  await assert.rejects(group.run({ scenario: 'events' }, { signal: AbortSignal.abort() }), {
    exitStatus: 130,
  });
});

it('closes during a run', async () => {
  const group = await launch({});
  const run = assert.rejects(group.run({ scenario: 'spinning' }), { code: 'RANK_GROUP_CLOSED' });
  await group.close();
  await run;
});

it('reports a rank that runs out of memory', async () => {
  const group = await launch({ resourceLimits: { maxOldGenerationSizeMb: 32 } });
  await assert.rejects(group.run({ scenario: 'exhausting' }), {
    code: 'RANK_DIED',
    message: /rank 1 died: .*memory/,
  });
});

it('reports a report that cannot be sent and a listener that throws', async () => {
  const group = await launch({});
  await assert.rejects(group.run({ scenario: 'unclonable' }), {
    code: 'INTERNAL',
    message: /could not be cloned/,
  });
  const listening = await launch({
    onEvent: () => {
      throw new Error('no ear');
    },
  });
  await assert.rejects(listening.run({ scenario: 'events' }), {
    code: 'INTERNAL',
    message: /no ear/,
  });
});

it('lets the process end after close', async () => {
  const module = import.meta.resolve('../../src/comm/rank-group.js');
  const script = `import(${JSON.stringify(module)}).then(async ({ launchRanks }) => {
    const group = await launchRanks({ size: 2, entry: new URL(${JSON.stringify(conformanceEntry.href)}) });
    await group.run({ scenario: 'events' });
    await group.close();
    console.log('closed');
  });`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--eval', script], {
    timeout: 10000,
  });
  assert.equal(stdout, 'closed\n');
});
