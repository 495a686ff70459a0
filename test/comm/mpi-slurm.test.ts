/** Ranks that Slurm starts; where a Slurm with PMIx is up and lets this user run two tasks. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { mpiProblem } from '../../src/comm/mpi-rank-group.ts';

const run = promisify(execFile);
const join = fileURLToPath(import.meta.resolve('./mpi-join-program.js'));
const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const model = fileURLToPath(new URL('../../../test/fixtures/tiny/qwen3_moe', import.meta.url));
const short = ['--schedules', 'dedup', '--prompt-count', '2', '--prompt-tokens', '8', '--max-new-tokens', '2'];
const compare = [process.execPath, main, 'compare', model, '--transport', 'mpi', ...short, '--repeats', '1'];
const timeout = 120_000;

async function cannotRun(): Promise<string | false> {
  const problem = await mpiProblem();
  if (problem !== undefined) return `MPI cannot be used here: ${problem.message} (${problem.hint})`;
  try {
    const { stdout, stderr } = await run('srun', ['--mpi=list'], { timeout: 10_000 });
    if (!/pmix/.test(stdout + stderr)) return 'Slurm has no PMIx here: srun --mpi=list';
    await run('srun', ['--immediate=5', '-n', '2', 'true'], { timeout: 20_000 });
    return false;
  } catch (error) {
    return `no Slurm runs here: ${(error as Error).message.split('\n')[0]}`;
  }
}

describe('MPI ranks under Slurm', { skip: await cannotRun() }, () => {
  it('are the tasks of a step with PMIx', async () => {
    const { stdout } = await run('srun', ['--mpi=pmix', '-n', '3', process.execPath, join], { timeout });
    assert.deepEqual((JSON.parse(stdout) as { reports: number[] }).reports, [0, 1, 2]);
  });

  it('are refused in a step without it, and as many as the allocation has tasks outside of a step', async () => {
    await assert.rejects(run('srun', ['--mpi=none', '-n', '2', ...compare], { timeout }), (error: { stderr: string }) =>
      /error MPI_SLURM: srun has started 2 tasks.*\nhint: srun --mpi=pmix/.test(error.stderr),
    );
    const { stdout } = await run('salloc', ['-n', '2', ...compare, '--json'], { timeout });
    const report = JSON.parse(stdout) as { layout: { ep: number }; outputsIdentical: boolean };
    assert.equal(report.layout.ep, 2);
    assert.ok(report.outputsIdentical);
  });

  it('end when one of them is killed', async () => {
    const kill = 'setTimeout(() => process.env.SLURM_PROCID === "1" && process.kill(process.pid, "SIGKILL"), 2500)';
    const preload = `data:text/javascript,${encodeURIComponent(kill)}`;
    const child = spawn('srun', [
      ...['--mpi=pmix', '-n', '2', process.execPath, `--import=${preload}`],
      ...compare.slice(1, -2),
      ...['--repeats', '1000000'],
    ]);
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    child.stdout.resume();
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
    assert.notEqual(code, 0);
    assert.match(said, /task 1: Killed/);
  });
});
