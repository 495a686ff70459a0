import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { exchangeLaunchers, measureExchange } from '../../src/calibrate/exchange-cost.ts';
import { threadSeconds } from '../../src/calibrate/thread-time.ts';
import { calibrateVerb } from '../../src/cli/calibrate.ts';
import { runCommandLine } from '../../src/cli/command-line.ts';

async function refusal(...args: string[]): Promise<{ status: number; error: string }> {
  let error = '';
  const terminal = {
    stdout: { write: () => {} },
    stderr: { write: (text: string) => (error += text) },
    environment: {},
  };
  const commandLine = { summary: '', version: '0', verbs: [calibrateVerb], examples: [] };
  const status = await runCommandLine(commandLine, ['calibrate', ...args], terminal, new AbortController().signal);
  return { status, error };
}

const out = ['--out', join(tmpdir(), 'never-written.yaml')];
const refusals: [string[], RegExp][] = [
  [[], /--out/],
  [['--out', join(tmpdir(), 'no', 'such', 'folder', 'x.yaml')], /USAGE_BAD_VALUE: --out: there is no folder/],
  [[...out, '--ranks', '1'], /--ranks/],
  [[...out, '--hosts', '3', '--gigabits', '1'], /--hosts: 3 does not divide 4 ranks/],
  [[...out, '--hosts', '2'], /USAGE_MISSING_FLAG: --gigabits/],
  [[...out, '--hosts', '2', '--gigabits', '-1'], /--gigabits/],
  [[...out, '--transport', 'pigeons'], /--transport/],
];
for (const [args, message] of refusals) {
  test(`calibrate refuses ${args.filter((arg) => !arg.includes('never')).join(' ')} before it measures`, async () => {
    const { status, error } = await refusal(...args);
    assert.equal(status, 2, error);
    assert.match(error, message);
  });
}

test('exchanges are measured among real ranks', async () => {
  const { latencySeconds, bytesPerSecond, samples } = await measureExchange({
    ...{ ranks: 2, launch: exchangeLaunchers.threads, signal: new AbortController().signal },
  });
  assert.ok(latencySeconds > 0 && latencySeconds < 1);
  assert.ok(bytesPerSecond > 0 && Number.isFinite(bytesPerSecond));
  assert.deepEqual(
    samples.map(({ bytes }) => bytes),
    [8, 1024, 4096, 16_384, 65_536, 524_288],
  );
});

test('a thread’s time goes on while it computes', () => {
  const before = threadSeconds();
  let sum = 0;
  for (let i = 0; i < 3e6; i++) sum += Math.sqrt(i);
  assert.ok(sum > 0 && threadSeconds() > before);
});
