import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { CompareReport } from '../../src/cli/compare-report.ts';
import type { GenerateReport } from '../../src/cli/generate-report.ts';
import type { PlanReport } from '../../src/cli/plan-report.ts';
import type { PlanDiff } from '../../src/plan/diff.ts';
import { solvers } from '../../src/plan/solvers/index.ts';
import type { TraceStatistics } from '../../src/trace/statistics.ts';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const model = fileURLToPath(new URL('../../../test/fixtures/tiny/qwen3_moe', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'smoe-test-'));
after(() => rmSync(work, { recursive: true }));

interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the compiled command; `interruptAt` sends SIGINT once stderr contains it. */
function smoe(args: string[], options: { input?: string; interruptAt?: string } = {}): Promise<Outcome> {
  const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, SMOE_CACHE: work } });
  const outcome: Outcome = { status: null, stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (outcome.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    const before = outcome.stderr;
    outcome.stderr += text;
    const { interruptAt } = options;
    if (interruptAt !== undefined && !before.includes(interruptAt) && outcome.stderr.includes(interruptAt))
      child.kill('SIGINT');
  });
  child.stdin.end(options.input ?? '');
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve({ ...outcome, status }));
  });
}

async function smoeJson<Report>(args: string[]): Promise<Report> {
  const { status, stdout, stderr } = await smoe([...args, '--json']);
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as Report;
}

const short = ['--prompt-count', '4', '--prompt-tokens', '24', '--max-new-tokens', '3', '--repeats', '1'];

describe('smoe', () => {
  it('compares schedules on a model it has no plan for, and keeps the plan it solves', async () => {
    const first = await smoe(['compare', model, '--ranks', '2', ...short, '--json']);
    assert.equal(first.status, 0, first.stderr);
    assert.match(first.stderr, /plan: solved, kept as /);
    const report = JSON.parse(first.stdout) as CompareReport;
    assert.deepEqual(report.layout, { dp: 1, tp: 2, ep: 2 });
    assert.deepEqual(
      report.schedules.map(({ name }) => name),
      ['deepspeed-moe', 'alltoallv', 'dedup', 'speculative'],
    );
    for (const { name, bytes, bitIdentical } of report.schedules) {
      assert.ok(bitIdentical, name);
      assert.equal(bytes.total, bytes.attention + bytes.dispatch + bytes.combine + bytes.control);
    }
    assert.ok(report.outputsIdentical);
    assert.ok(report.maxAbsLogitDifference! < 1e-3);
    const again = await smoe(['compare', model, '--ranks', '2', ...short, '--schedules', 'speculative']);
    assert.equal(again.status, 0, again.stderr);
    assert.match(again.stderr, /plan: cached, /);
    assert.match(again.stdout, /^yes every schedule's logits equal, bit for bit, the one-rank run of its plan$/m);
  });

  it('compares data-parallel layouts and every position', async () => {
    const report = await smoeJson<CompareReport>([
      'compare',
      model,
      '--dp',
      '2',
      '--tp',
      '1',
      '--logits',
      'all',
      '--overlap',
      'all',
      ...short,
    ]);
    assert.deepEqual(report.layout, { dp: 2, tp: 1, ep: 2 });
    assert.ok(report.outputsIdentical && report.schedules.every(({ bitIdentical }) => bitIdentical));
    assert.ok(report.schedules.every(({ bytes }) => bytes.attention === 0));
  });

  it('records, shows, and plans from a trace', async () => {
    const trace = join(work, 'routing.parquet');
    const plan = join(work, 'plan.json');
    const recorded = await smoeJson<{ tokens: number; requests: number }>([
      'trace',
      'record',
      model,
      '--out',
      trace,
      '--prompt-tokens',
      '20',
    ]);
    const shown = await smoeJson<TraceStatistics>(['trace', 'show', trace]);
    assert.equal(shown.tokens, recorded.tokens);
    assert.equal(shown.requests, recorded.requests);
    assert.equal(shown.model.experts, 16);
    const planned = await smoeJson<PlanReport>(['plan', trace, '--devices', '4', '--compare', '--out', plan]);
    assert.deepEqual(
      planned.solvers.map(({ solver }) => solver),
      Object.keys(solvers),
    );
    assert.equal(planned.profileTokens + planned.evaluationTokens, recorded.tokens);
    const next = join(work, 'next.json');
    const replanned = await smoeJson<PlanReport>(['plan', trace, '--start', plan, '--replicas', '25%', '--out', next]);
    assert.equal(replanned.replicasPerDevice, 1);
    const diff = await smoeJson<PlanDiff>(['plan', 'diff', plan, next]);
    assert.equal(diff.movedExperts, replanned.solvers[0]!.movedExperts);
    assert.match((await smoe(['plan', 'diff', plan, next])).stdout, /experts? change owner, \d+ copies are added/);
    const used = await smoeJson<GenerateReport>([
      'generate',
      model,
      '--plan',
      plan,
      '--ranks',
      '4',
      '--prompt',
      'one two',
      '--max-new-tokens',
      '4',
    ]);
    assert.equal(used.schedule, 'speculative');
    assert.equal(used.plan, plan);
  });

  it('generates the same text on one rank and on two, and stops where told', async () => {
    const generate = ['generate', model, '--prompt', 'one two', '--max-new-tokens', '12', '--ignore-end'];
    const one = await smoeJson<GenerateReport>(generate);
    const two = await smoeJson<GenerateReport>([...generate, '--ranks', '2', '--schedule', 'alltoallv']);
    assert.equal(two.text, one.text);
    assert.ok(two.bytes.total > 0 && one.bytes.total === 0);
    const streamed = await smoe([...generate.filter((arg) => arg !== '--prompt' && arg !== 'one two'), '--stats'], {
      input: 'one two',
    });
    assert.equal(streamed.stdout.trimEnd(), one.text.trimEnd());
    assert.match(streamed.stderr, /compute +communication/);
    const stop = one.text.slice(4, 7);
    const stopped = await smoeJson<GenerateReport>([...generate, '--stop', JSON.stringify([stop])]);
    assert.equal(stopped.text, one.text.slice(0, one.text.indexOf(stop)));
    assert.equal(stopped.finishReason, 'stop');
  });

  it('says what is wrong on stderr, and on stdout as JSON when asked', async () => {
    const missing = await smoe(['compare', join(work, 'no-model'), '--json']);
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /^error CHECKPOINT_NOT_FOUND: .*\nhint: /);
    assert.equal((JSON.parse(missing.stdout) as { error: { code: string } }).error.code, 'CHECKPOINT_NOT_FOUND');
    const bad = await smoe(['compare', model, '--ranks', '3']);
    assert.notEqual(bad.status, 0);
    assert.match(bad.stderr, /^error /);
    const infeasible = await smoe(['plan', join(work, 'routing.parquet'), '--devices', '17']);
    assert.equal(infeasible.status, 3);
    const tooMany = await smoe(['plan', join(work, 'routing.parquet'), '--replicas', '99']);
    assert.equal(tooMany.status, 3);
    assert.match(tooMany.stderr, /^error PLAN_INFEASIBLE: replicas: 99 copies per device/);
    for (const wrong of [
      ['--replicas', 'x'],
      ['--move-price', '-1', '--start', join(work, 'plan.json')],
      ['--cluster', 'nowhere.yaml'],
      ['--cluster', 'nvlink-8', '--devices', '4'],
      ['--lookback', '4'],
    ]) {
      const refused = await smoe(['plan', join(work, 'routing.parquet'), ...wrong]);
      assert.equal(refused.status, 2, wrong.join(' '));
    }
    const nowhere = await smoe(['trace', 'record', model, '--out', join(work, 'no', 'trace.parquet')]);
    assert.equal(nowhere.status, 2);
    assert.match(nowhere.stderr, /^error USAGE_BAD_VALUE: --out: /);
    const silent = await smoe(['generate', model]);
    assert.equal(silent.status, 2);
    assert.match(silent.stderr, /^error PROMPT_EMPTY/);
  });

  it('ends with 130 on Ctrl-C', async () => {
    const interrupted = await smoe(['compare', model, '--ranks', '2', '--repeats', '500'], {
      interruptAt: 'comparing',
    });
    assert.equal(interrupted.status, 130);
    assert.match(interrupted.stderr, /error INTERRUPTED: /);
  });

  it('prints its version', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    assert.equal((await smoe(['--version'])).stdout, `${version}\n`);
  });
});
