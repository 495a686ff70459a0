import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { launchMpiRanks, mpiProblem, type MpiLaunchOptions } from '../../src/comm/mpi-rank-group.ts';
import type { RankGroup } from '../../src/comm/rank-group.ts';
import type { MpiTestJob } from './mpi-test-rank.ts';

const problem = await mpiProblem();
const skip = problem === undefined ? false : `MPI cannot be used here: ${problem.message} (${problem.hint})`;

const entry = new URL(import.meta.resolve('./mpi-test-rank.js'));
/** Within this time everything must have ended, whatever happened. */
const endWithinMs = 10_000;

type TestGroup = RankGroup<MpiTestJob, unknown>;

function launch(options: Partial<MpiLaunchOptions<never>> = {}): Promise<TestGroup> {
  return launchMpiRanks({ size: 2, entry, onOutput: () => undefined, ...options });
}

function pathOf(module: string): string {
  return fileURLToPath(import.meta.resolve(`./${module}.js`));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function assertEnded(pids: number[]): Promise<void> {
  const end = performance.now() + endWithinMs;
  while (pids.some(isAlive) && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(pids.filter(isAlive), []);
}

async function pidsOf(group: TestGroup): Promise<number[]> {
  return ((await group.run({ scenario: 'pids' })) as { pid: number }[]).map(({ pid }) => pid);
}

/** Runs `scenario`, calls `act` with the ranks' process ids in the midst of it, and returns the error of the run. */
async function failureDuring(
  scenario: MpiTestJob['scenario'],
  size: number,
  act: (pids: number[], group: TestGroup, controller: AbortController) => void,
): Promise<Error & { code?: string }> {
  const group = await launch({ size });
  const pids = await pidsOf(group);
  const controller = new AbortController();
  let acted = 0;
  setTimeout(() => {
    acted = performance.now();
    act(pids, group, controller);
  }, 100);
  try {
    await group.run({ scenario }, { signal: controller.signal });
  } catch (error) {
    assert.ok(performance.now() - acted < endWithinMs, `took ${performance.now() - acted} ms`);
    await assertEnded(pids);
    return error as Error;
  }
  assert.fail('the run did not fail');
}

describe('MPI ranks: messages', { skip }, () => {
  it('carry structured data of any size both ways, and survive what ranks print', async () => {
    const lines: string[] = [];
    const group = await launch({ onOutput: (line) => lines.push(line) });
    const payload = { floats: Float64Array.from({ length: 300_000 }, (_, i) => i / 3), map: new Map([['a', 1n]]) };
    await group.run({ scenario: 'print' });
    assert.deepEqual(await group.run({ scenario: 'echo', payload }), [
      { rank: 0, payload },
      { rank: 1, payload },
    ]);
    const jobs: MpiTestJob[] = [7, 8].map((value) => ({ scenario: 'echo', payload: value }));
    assert.deepEqual(await group.runEach(jobs), [
      { rank: 0, payload: 7 },
      { rank: 1, payload: 8 },
    ]);
    await group.run({ scenario: 'print' });
    await group.close();
    for (const rank of [0, 1])
      assert.ok(
        lines.some((line) => line.includes(`printed by rank ${rank}`)),
        lines.join('\n'),
      );
  });

  it('leave WebAssembly traps working', async () => {
    const group = await launch();
    const [trap] = (await group.run({ scenario: 'trap' })) as string[];
    assert.match(trap, /out of bounds/);
    await group.close();
  });

  it('end the ranks when the group is closed, in either state', async () => {
    const group = await launch();
    const pids = await pidsOf(group);
    await group.close();
    await group.close();
    await assertEnded(pids);
    await assert.rejects(group.run({ scenario: 'pids' }), { code: 'RANK_GROUP_CLOSED' });
    const error = await failureDuring('spin', 2, (_, running) => void running.close());
    assert.equal(error.code, 'RANK_GROUP_CLOSED');
  });
});

describe('MPI ranks: refusals', { skip }, () => {
  it('names the rank that has something else, before anything is loaded', async () => {
    await assert.rejects(launch({ size: 3, data: { odd: 2 } }), {
      code: 'RANKS_DISAGREE',
      message: /^rank 2 on \S+ has model fingerprint-b, rank 0 on \S+ has fingerprint-a$/,
    });
    await assert.rejects(launch({ agreement: { model: 'fingerprint-c' } }), {
      code: 'RANKS_DISAGREE',
      message: /^rank 0 on \S+ has model fingerprint-a, the host of the run has fingerprint-c$/,
    });
  });

  it('refuses entries and data that are no good', async () => {
    await assert.rejects(launch({ entry: new URL('./missing.js', import.meta.url) }), /rank [01]: .*missing\.js/);
    await assert.rejects(launch({ entry: new URL('data:text/javascript,export default 1') }), { code: 'RANK_ENTRY' });
    await assert.rejects(launch({ data: () => undefined }), { code: 'RANK_START' });
    await assert.rejects(launch({ size: 65 }), { code: 'RANK_COUNT' });
  });

  it('reports mpirun that does not start the ranks', async () => {
    await assert.rejects(launch({ mpirunArguments: ['--no-such-option'] }), {
      code: 'MPI_LAUNCH',
      message: /no-such-option/,
    });
    await assert.rejects(launch({ hosts: ['no-such-host.invalid'], startTimeoutMs: 20_000 }), { code: 'MPI_LAUNCH' });
    await assert.rejects(launch({ startTimeoutMs: 1 }), { code: 'MPI_LAUNCH', message: /within 0.001 seconds/ });
  });

  it('refuses another MPI library', async () => {
    await assert.rejects(launch({ environment: { SMOE_MPI_LIBRARY: 'libmissing.so.1' } }), {
      code: 'MPI_MISSING',
      message: /^rank [01]: libmissing\.so\.1 cannot be loaded/,
    });
    await assert.rejects(launch({ environment: { SMOE_MPI_LIBRARY: 'libm.so.6' } }), { code: 'MPI_FLAVOUR' });
  });
});

describe('MPI ranks: ends', { skip }, () => {
  for (const victim of [0, 2]) {
    it(`names rank ${victim} when it is killed`, async () => {
      const error = await failureDuring('poll', 3, (pids) => process.kill(pids[victim], 'SIGKILL'));
      assert.equal(error.code, 'RANK_DIED', error.message);
      assert.match(error.message, new RegExp(`^rank ${victim} died: signal 9`));
    });
  }

  it('names the rank that throws outside of its job', async () => {
    const group = await launch();
    await assert.rejects(group.run({ scenario: 'uncaught' }), {
      code: 'RANK_DIED',
      message: 'rank 1 died: thrown in a timer',
    });
  });

  it('interrupts ranks that compute and ranks that wait', async () => {
    for (const scenario of ['spin', 'wait'] as const) {
      const error = await failureDuring(scenario, 2, (_, __, controller) => controller.abort());
      assert.equal(error.code, 'INTERRUPTED');
    }
  });

  const ends: [string, MpiTestJob['scenario'] | 'idle', NodeJS.Signals, string | undefined][] = [
    ['is interrupted', 'wait', 'SIGINT', 'INTERRUPTED'],
    ['is killed while the ranks wait', 'poll', 'SIGKILL', undefined],
    ['is killed while the ranks compute', 'spin', 'SIGKILL', undefined],
    ['is killed while the ranks idle', 'idle', 'SIGKILL', undefined],
  ];
  for (const [name, scenario, signal, said] of ends) {
    it(`leaves nothing running when the host ${name}`, async () => {
      const host = spawn(process.execPath, [pathOf('mpi-host-program'), scenario], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const lines = createInterface({ input: host.stdout })[Symbol.asyncIterator]();
      const pids = JSON.parse((await lines.next()).value as string) as number[];
      await new Promise((resolve) => setTimeout(resolve, 100));
      host.kill(signal);
      assert.equal((await lines.next()).value, said);
      await assertEnded([...pids, host.pid!]);
    });
  }

  it('leaves nothing running when mpirun is killed', async () => {
    const children: number[] = [];
    const error = await failureDuring('spin', 2, (pids) => {
      void promisify(execFile)('ps', ['-o', 'ppid=', '-p', String(pids[1])]).then(({ stdout }) => {
        children.push(Number(stdout));
        process.kill(Number(stdout), 'SIGKILL');
      });
    });
    assert.equal(error.code, 'MPI_LAUNCH');
    assert.match(error.message, /SIGKILL/);
    await assertEnded(children);
  });
});

describe('MPI ranks: an mpirun of their own', { skip }, () => {
  const mpirun = async (...programArguments: string[]): Promise<{ stdout: string }> => {
    const root = process.getuid?.() === 0 ? ['--allow-run-as-root'] : [];
    const options = [...root, '--oversubscribe', '--mca', 'mpi_yield_when_idle', '1', '-n', '3', process.execPath];
    return promisify(execFile)(
      process.env.SMOE_MPIRUN ?? 'mpirun',
      [...options, pathOf('mpi-join-program'), ...programArguments],
      {
        timeout: 30_000,
      },
    );
  };

  it('makes rank 0 the host', async () => {
    const { stdout } = await mpirun();
    const events = [0, 1, 2].flatMap((rank) => [0, 1, 2].map((i) => `${rank}:${i}`));
    assert.deepEqual(JSON.parse(stdout), { reports: [0, 1, 2], events });
  });

  it('names the rank that fails or disagrees, on rank 0', async () => {
    await assert.rejects(mpirun('throwing'), ({ stdout }: { stdout: string }) =>
      /^TEST_THROWN: rank 1: thrown/m.test(stdout),
    );
    await assert.rejects(mpirun('too many'), ({ stdout }: { stdout: string }) =>
      /^RANK_COUNT: 4 ranks are wanted, 3 processes/m.test(stdout),
    );
    await assert.rejects(mpirun('other plan'), ({ stdout }: { stdout: string }) =>
      /^RANKS_DISAGREE: rank 1 on \S+ has plan b, /m.test(stdout),
    );
  });
});

describe('MPI on this host', () => {
  /** What `mpiProblem` says in a fresh process. */
  async function problemWith(environment: Record<string, string>, module: string): Promise<string> {
    const script = `import(process.argv[1]).then(async ({ mpiProblem }) => {
      const problem = await mpiProblem();
      console.log(problem?.code + ': ' + problem?.message + ' / ' + problem?.hint);
    });`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--eval', script, module], {
      env: { ...process.env, ...environment },
    });
    return stdout.trim();
  }
  const module = import.meta.resolve('../../src/comm/mpi-rank-group.js');

  it('is checked before anything is started', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'smoe-mpi-'));
    try {
      const fake = (name: string, says: string): string => {
        const path = join(directory, name);
        writeFileSync(path, `#!/bin/sh\necho '${says}'\n`);
        chmodSync(path, 0o755);
        return path;
      };
      const withMpirun = (path: string): Promise<string> => problemWith({ SMOE_MPIRUN: path }, module);
      assert.match(
        await withMpirun(join(directory, 'absent')),
        /^MPI_MISSING: .*absent cannot be run.*apt-get install openmpi-bin/,
      );
      assert.match(
        await withMpirun(fake('hydra', 'HYDRA build details:')),
        /^MPI_FLAVOUR: "HYDRA build details:" is not Open MPI/,
      );
      assert.match(
        await withMpirun(fake('old', 'mpirun (Open MPI) 3.1.6')),
        /^MPI_VERSION: Open MPI 3\.1 is not supported/,
      );
      assert.match(await problemWith({ OMPI_COMM_WORLD_SIZE: '2' }, module), /^MPI_NESTED: .*joinProcesses/);
      // The program without its dependencies.
      cpSync(new URL('../../src', import.meta.url), join(directory, 'src'), { recursive: true });
      writeFileSync(join(directory, 'package.json'), '{ "type": "module" }');
      assert.match(
        await problemWith({}, join(directory, 'src/comm/mpi-rank-group.js')),
        /^MPI_BINDING: .*koffi.*npm ci/,
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
