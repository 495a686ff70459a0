/** The command line over MPI: by itself, inside an mpirun, and on a testbed. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { CompareReport } from '../../src/cli/compare-report.ts';
import type { GenerateReport } from '../../src/cli/generate-report.ts';
import { mpiProblem } from '../../src/comm/mpi-rank-group.ts';
import { mostOneShotTokens } from '../../src/engine/exchange-choices.ts';
import { requireTopology, thisMachine } from '../../src/testbed/requirements.ts';
import { homogeneous } from '../../src/testbed/topology.ts';
import { readTrace } from '../../src/trace/parquet.ts';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const rank = fileURLToPath(new URL('../../src/comm/mpi-rank.js', import.meta.url));
const model = fileURLToPath(new URL('../../../test/fixtures/tiny/qwen3_moe', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'smoe-cli-mpi-'));
after(() => rmSync(work, { recursive: true }));
const endWithinMs = 10_000;

const problem = await mpiProblem();
const skip = problem === undefined ? false : `MPI cannot be used here: ${problem.message} (${problem.hint})`;

interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
  /** Since `act` was called. */
  milliseconds: number;
}

/** Runs a command; `act` is called once with its process id when stderr contains `at`. */
async function run(
  command: string[],
  options: { environment?: Record<string, string>; at?: string; act?: (pid: number) => void } = {},
): Promise<Outcome> {
  const { environment, at, act } = options;
  const child = spawn(command[0]!, command.slice(1), {
    env: { ...process.env, SMOE_CACHE: work, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const outcome: Outcome = { status: null, stdout: '', stderr: '', milliseconds: 0 };
  let acted = performance.now();
  child.stdout.setEncoding('utf8').on('data', (text: string) => (outcome.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    const before = outcome.stderr;
    outcome.stderr += text;
    if (at === undefined || before.includes(at) || !outcome.stderr.includes(at)) return;
    acted = performance.now();
    act!(child.pid!);
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  return { ...outcome, status, milliseconds: performance.now() - acted };
}

const smoe = (...args: string[]): string[] => [process.execPath, main, ...args];
const mpirun = (ranks: number, ...args: string[]): string[] => [
  ...[process.env.SMOE_MPIRUN ?? 'mpirun', '--oversubscribe', '--bind-to', 'none', '--mca', 'mpi_yield_when_idle', '1'],
  ...(process.getuid?.() === 0 ? ['--allow-run-as-root'] : []),
  ...['-n', String(ranks), ...smoe(...args)],
];

/** Processes of this test, whichever parent they have: their environment says so. Those that have ended do not count. */
function running(): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((pid) => readText(`/proc/${pid}/environ`).includes(`SMOE_CACHE=${work}`))
    .map(Number);
}

/** Calls `act` with the ranks' process ids a second after there are two, which is when they load or compute. */
function whenRanksRun(program: string, act: (ranks: number[]) => void): void {
  const timer = setInterval(() => {
    const ranks = running().filter((pid) => new RegExp(`^[^ ]*node ${program}`).test(commandLineOf(pid)));
    if (ranks.length < 2) return;
    clearInterval(timer);
    setTimeout(() => act(ranks), 1000);
  }, 50);
}

function commandLineOf(pid: number): string {
  return readText(`/proc/${pid}/cmdline`).replaceAll('\0', ' ');
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

async function assertNothingRuns(): Promise<void> {
  const end = performance.now() + endWithinMs;
  while (running().length > 0 && performance.now() < end) await delay(20);
  assert.deepEqual(running(), []);
}

const short = ['--prompt-count', '3', '--prompt-tokens', '24', '--max-new-tokens', '3', '--repeats', '1'];
const long = ['--prompt-count', '8', '--prompt-tokens', '64', '--repeats', '1000000', '--schedules', 'dedup'];
const comparing = 'comparing dedup';

describe('smoe over MPI', { skip }, () => {
  it('compares, by itself and inside an mpirun, with the same result', async () => {
    const flags = ['compare', model, '--transport', 'mpi', '--schedules', 'alltoallv,dedup', ...short, '--json'];
    const essence: unknown[] = [];
    for (const command of [smoe(...flags, '--ranks', '2'), mpirun(2, ...flags)]) {
      const { status, stdout, stderr } = await run(command);
      assert.equal(status, 0, stderr);
      const report = JSON.parse(stdout) as CompareReport;
      assert.equal(report.transport, 'mpi');
      assert.equal(report.network, 'shared memory');
      assert.deepEqual(report.layout, { dp: 1, tp: 2, ep: 2 });
      assert.ok(report.outputsIdentical && report.schedules.every(({ bitIdentical }) => bitIdentical));
      essence.push(report.schedules.map(({ bytes, messages, logitsSha256 }) => ({ bytes, messages, logitsSha256 })));
    }
    assert.deepEqual(essence[1], essence[0]);
    await assertNothingRuns();
  });

  it('generates and records inside an mpirun, with one set of output', async () => {
    const generated = await run(
      mpirun(2, 'generate', model, '--transport', 'mpi', '--schedule', 'dedup', '--prompt', 'a', '--json'),
    );
    assert.equal(generated.status, 0, generated.stderr);
    assert.equal((JSON.parse(generated.stdout) as GenerateReport).transport, 'mpi');
    const texts = ['--text', fileURLToPath(new URL('../../../models/demo/heldout/profile.jsonl', import.meta.url))];
    const out = join(work, 'routing.parquet');
    const args = ['trace', 'record', model, '--transport', 'mpi', '--prompt-tokens', '8', '--out', out, ...texts];
    const recorded = await run(mpirun(2, ...args, '--json'));
    assert.equal(recorded.status, 0, recorded.stderr);
    assert.equal((await readTrace(out)).length, (JSON.parse(recorded.stdout) as { tokens: number }).tokens);
  });

  it('refuses before anything is loaded', async () => {
    const missing = await run(smoe('compare', model, '--transport', 'mpi', '--ranks', '2'), {
      environment: { SMOE_MPIRUN: '/nonexistent/mpirun' },
    });
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /^error MPI_MISSING: .*\nhint: install Open MPI 4 or 5 .*apt-get install openmpi-bin/);
    const tooFew = await run(mpirun(2, 'compare', model, '--transport', 'mpi', '--ranks', '4'));
    assert.equal(tooFew.status, 2);
    assert.match(tooFew.stderr, /error RANK_COUNT: 4 ranks are wanted, 2 processes have been started/);
    await assertNothingRuns();
  });

  const ends: [string, string[], (pid: number) => void, number | undefined, RegExp][] = [
    [
      'it is interrupted',
      smoe('compare', model, '--transport', 'mpi', '--ranks', '2', ...long),
      (pid) => whenRanksRun(rank, () => process.kill(pid, 'SIGINT')),
      130,
      /error INTERRUPTED/,
    ],
    [
      'a rank is killed',
      smoe('compare', model, '--transport', 'mpi', '--ranks', '2', ...long),
      () => whenRanksRun(rank, (ranks) => process.kill(ranks[1]!, 'SIGKILL')),
      1,
      /error RANK_DIED: rank [01] died: signal 9 \(Killed\)/,
    ],
    [
      'the mpirun around it is interrupted',
      mpirun(2, 'compare', model, '--transport', 'mpi', ...long),
      (pid) => whenRanksRun(main, () => process.kill(pid, 'SIGINT')),
      undefined,
      /./,
    ],
    [
      'a rank of the mpirun around it is interrupted',
      mpirun(2, 'compare', model, '--transport', 'mpi', ...long),
      () => whenRanksRun(main, (ranks) => process.kill(ranks[1]!, 'SIGINT')),
      undefined,
      /process rank \d with PID \d+ on node \S+ exited\s+on\s+signal 2|INTERRUPTED/,
    ],
  ];
  for (const [what, command, act, expected, said] of ends) {
    it(`leaves nothing when ${what}`, async () => {
      const { status, stderr } = await run(command, { at: comparing, act });
      if (expected === undefined) assert.notEqual(status, 0);
      else assert.equal(status, expected, stderr);
      assert.match(stderr, said);
      await assertNothingRuns();
      assert.ok(!/error INTERNAL/.test(stderr), stderr);
    });
  }

  it('runs on the hosts of a testbed without being told', { skip: cannotMakeTestbed() }, async () => {
    const { status, stdout, stderr } = await run([
      ...smoe('testbed', 'run', '--hosts', '2', '--rate', '1gbit', '--no-measure', '--'),
      ...smoe('compare', model, '--transport', 'mpi', '--schedules', 'dedup', ...short, '--json'),
    ]);
    assert.equal(status, 0, stderr);
    const report = JSON.parse(stdout) as CompareReport;
    assert.match(report.network, /^testbed run-\d+, 2 hosts \(smoe-run-\d+-0, smoe-run-\d+-1\)$/);
    assert.ok(report.schedules[0]!.bitIdentical);
    await assertNothingRuns();
  });

  it('measures links between hosts to know which steps go one-shot', { skip: cannotMakeTestbed() }, async () => {
    const { status, stdout, stderr } = await run([
      ...smoe('testbed', 'run', '--hosts', '2', '--ranks-per-host', '2', '--rate', '100mbit', '--no-measure', '--'),
      ...smoe('compare', '--transport', 'mpi', '--schedules', 'dedup,speculative', ...short, '--json'),
    ]);
    assert.equal(status, 0, stderr);
    const [dedup, speculative] = (JSON.parse(stdout) as CompareReport).schedules;
    assert.equal(dedup!.oneShotTokens, 0);
    assert.ok(speculative!.oneShotTokens >= 1 && speculative!.oneShotTokens <= mostOneShotTokens);
    assert.ok(speculative!.bitIdentical);
  });
});

function cannotMakeTestbed(): string | false {
  try {
    requireTopology(homogeneous({ name: 'probe', hosts: 2, rateMbit: 1000 }), thisMachine());
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}
