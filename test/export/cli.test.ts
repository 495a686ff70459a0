import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { runCommandLine } from '../../src/cli/command-line.ts';
import { commandLineOf } from '../../src/cli/verbs.ts';
import type { ExportReport } from '../../src/export/export-plan.ts';
import type { Plan } from '../../src/plan/plan.ts';
import { readPlan, writePlan } from '../../src/plan/plan-file.ts';
import { matchesSnapshot } from '../cli/snapshot.ts';
import { planOf } from './plans.ts';

const demo = fileURLToPath(new URL('../../../models/demo', import.meta.url));

interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

describe('smoe export', () => {
  let directory: string;
  let plan: Plan;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'smoe-export-'));
    plan = readPlan(join(demo, 'plan-4.json'));
    write('dense/config.json', { num_hidden_layers: 3, num_experts: 8, num_experts_per_tok: 2, mlp_only_layers: [0] });
  });
  after(() => rmSync(directory, { recursive: true }));

  const at = (name: string): string => join(directory, name);
  function write(name: string, content: object): string {
    const path = at(name.replace('/', '-'));
    writeFileSync(path, JSON.stringify(content));
    return path;
  }
  function keep(name: string, kept: Plan): string {
    writePlan(at(name), kept);
    return at(name);
  }
  /** In this process, as starting one costs more than the export; names without a folder are in the test's own. */
  async function smoe(...args: string[]): Promise<Outcome> {
    const outcome: Outcome = { status: null, stdout: '', stderr: '' };
    const here = args.map((arg) => (/^[\w-]+\.(json|yaml|pt)$|^renumbered$/.test(arg) ? at(arg) : arg));
    const terminal = {
      stdout: { write: (text: string) => (outcome.stdout += text) },
      stderr: { write: (text: string) => (outcome.stderr += text) },
      environment: { SMOE_CACHE: directory },
    };
    outcome.status = await runCommandLine(commandLineOf('0.0.0'), here, terminal, new AbortController().signal);
    return outcome;
  }
  async function exported(...args: string[]): Promise<ExportReport> {
    const { status, stdout, stderr } = await smoe('export', ...args, '--json');
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout) as ExportReport;
  }
  async function refused(status: number, code: string, message: RegExp, ...args: string[]): Promise<void> {
    const before = readdirSync(directory);
    const outcome = await smoe('export', ...args);
    assert.equal(outcome.status, status, outcome.stderr);
    assert.match(outcome.stderr, new RegExp(`^error ${code}: `, 'm'));
    assert.match(outcome.stderr, message);
    assert.match(outcome.stderr, /^hint: ./m);
    assert.deepEqual(readdirSync(directory), before, 'wrote something');
  }
  const small = (copies?: number[][]): Plan =>
    planOf([1, 0, 1, 0, 0, 1, 0, 1], { layers: 2, ...(copies && { copies }) });

  it('writes SGLang’s expert locations, dense layers filled', async () => {
    const report = await exported(
      keep('small.json', small()),
      '--to',
      'sglang',
      '--model',
      at('dense-config.json'),
      '--out',
      'a.json',
    );
    const rows = [0, 1, 2, 3, 4, 5, 6, 7];
    const placed = [1, 3, 4, 6, 0, 2, 5, 7];
    assert.deepEqual(JSON.parse(readFileSync(at('a.json'), 'utf8')), {
      physical_to_logical_map: [rows, placed, placed],
    });
    assert.deepEqual(report.files, [at('a.json'), at('a.json.smoe.json')]);
    assert.ok(report.promiseHolds);
    assert.ok(
      report.launch.includes('--init-expert-location') && !report.launch.includes('--ep-num-redundant-experts'),
    );
    const sidecar = JSON.parse(readFileSync(at('a.json.smoe.json'), 'utf8')) as Record<string, unknown>;
    assert.deepEqual([sidecar.ranks, sidecar.engine, sidecar.modelFingerprint], [2, 'sglang', 'any model']);
  });

  it('maps copies to redundant experts, and evens the ranks out', async () => {
    const report = await exported(
      ...[
        keep('copies.json', small([[2, 7], [3]])),
        '--to',
        'sglang',
        '--model',
        at('dense-config.json'),
        '--out',
        'b.json',
      ],
    );
    assert.equal(report.redundantExperts, 4);
    assert.equal(report.paddingCopies, 2);
    assert.equal(report.promiseHolds, false);
    assert.match(report.promiseNeeds ?? '', /SMOE_SGLANG_OWNER_FIRST/);
    assert.equal(report.launch[report.launch.indexOf('--ep-num-redundant-experts') + 1], '4');
  });

  it('writes every engine’s file for the shipped model, and reads each back', async () => {
    for (const [engine, file] of Object.entries({
      sglang: 's.json',
      vllm: 'v.json',
      trtllm: 't.yaml',
      deepspeed: 'd.json',
    })) {
      const report = await exported(join(demo, 'plan-4.json'), '--to', engine, '--out', file);
      assert.deepEqual(report.promise, plan.promise);
      assert.equal(report.slotsPerRank, 16);
      const checked = await smoe('export', '--to', engine, '--check', file, join(demo, 'plan-4.json'));
      assert.equal(checked.status, 0, checked.stderr);
      assert.match(checked.stdout, /8 layers, 16 experts a rank and layer.*agrees with its sidecar and the plan/);
    }
    const yaml = parse(readFileSync(at('t.yaml'), 'utf8')) as { initial_global_assignments: Record<string, number[]> };
    assert.deepEqual(Object.keys(yaml.initial_global_assignments), ['0', '1', '2', '3', '4', '5', '6', '7']);
    assert.match(
      readFileSync(at('t.yaml.options.yaml'), 'utf8'),
      /enable_attention_dp: true\n.*\n {2}backend: WIDEEP\n {2}load_balancer: .*t.yaml/,
    );
  });

  it('says what was written and how to start', async () => {
    const { stdout } = await smoe(
      'export',
      join(demo, 'plan-4.json'),
      '--to',
      'vllm',
      '--model',
      demo,
      '--out',
      'text.json',
    );
    matchesSnapshot('export', stdout.replaceAll(demo, 'models/demo').replaceAll(`${directory}/`, ''));
  });

  it('writes the other forms that vLLM’s forks and proposals read', async () => {
    await exported(join(demo, 'plan-4.json'), '--to', 'vllm', '--format', 'ascend', '--out', 'ascend.json');
    const { layer_list: layers } = JSON.parse(readFileSync(at('ascend.json'), 'utf8')) as {
      layer_list: { device_list: { device_expert: number[] }[] }[];
    };
    assert.equal(layers.length, 8);
    assert.deepEqual(
      layers[3]!.device_list.map(({ device_expert: experts }) =>
        experts.map((expert) => plan.expertOwner[3 * 64 + expert]),
      ),
      [0, 1, 2, 3].map((device) => Array.from({ length: 16 }, () => device)),
    );
    assert.equal((await smoe('export', '--to', 'vllm', '--check', 'ascend.json')).status, 0);
    await exported(
      keep('same.json', small()),
      '--to',
      'vllm',
      '--format',
      'expert-to-rank',
      '--model',
      at('dense-config.json'),
      '--out',
      'r.json',
    );
    assert.deepEqual(JSON.parse(readFileSync(at('r.json'), 'utf8')), { expert_to_ep_rank: [1, 0, 1, 0, 0, 1, 0, 1] });
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /one list for all layers/,
      join(demo, 'plan-4.json'),
      '--to',
      'vllm',
      '--format',
      'expert-to-rank',
    );
  });

  it('refuses what the engine cannot run or gain with', async () => {
    const demoPlan = join(demo, 'plan-4.json');
    const dense = ['--model', at('dense-config.json')];
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /every token to every rank.*\nhint: use --backend deepep/,
      demoPlan,
      '--to',
      'sglang',
      '--backend',
      'none',
    );
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /hint: use --backend deepep_high/,
      demoPlan,
      '--to',
      'vllm',
      '--backend',
      'allgather_reducescatter',
    );
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /tensor-parallel attention.*\nhint: use --attention dp/,
      demoPlan,
      '--to',
      'trtllm',
      '--attention',
      'tp',
    );
    await refused(3, 'EXPORT_INFEASIBLE', /padded|every token/, demoPlan, '--to', 'deepspeed', '--backend', 'legacy');
    await refused(3, 'PLAN_LAYOUT', /made for 4 ranks, not 8/, demoPlan, '--to', 'sglang', '--ranks', '8');
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /the plan has 6 copies/,
      keep('c2.json', small([[2, 7], [3]])),
      '--to',
      'deepspeed',
      ...dense,
    );
    const unequal = planOf([0, 0, 0, 0, 0, 1, 1, 1], { layers: 2 });
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /in layer 0 the plan has 5, 3/,
      keep('u.json', unequal),
      '--to',
      'deepspeed',
      ...dense,
    );
    write('mixtral.json', { architectures: ['MixtralForCausalLM'], num_hidden_layers: 2, num_local_experts: 8 });
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /no expert locations for Mixtral/,
      keep('m.json', small()),
      '--to',
      'sglang',
      '--model',
      at('mixtral.json'),
    );
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /with none moves the experts of Qwen3MoeForCausalLM.*output would be wrong/,
      ...[demoPlan, '--to', 'sglang', '--backend', 'none', '--allow-no-gain'],
    );
    write('deepseek.json', {
      ...{ architectures: ['DeepseekV3ForCausalLM'], num_hidden_layers: 3, first_k_dense_replace: 1 },
      ...{ n_routed_experts: 8, num_experts_per_tok: 2 },
    });
    const allowed = await exported(
      ...[keep('n.json', small()), '--to', 'sglang', '--model', at('deepseek.json'), '--backend', 'none'],
      ...['--allow-no-gain', '--out', 'none.json'],
    );
    assert.equal(allowed.promiseHolds, false);
    assert.ok(allowed.launch.join(' ').includes('--ep-dispatch-algorithm dynamic'));
    const dropped = await exported(
      keep('c2.json', small([[2, 7], [3]])),
      '--to',
      'deepspeed',
      ...dense,
      '--drop-copies',
      '--out',
      'dropped.json',
    );
    assert.equal(dropped.promise, null);
  });

  it('refuses another model, and wrong words', async () => {
    const demoPlan = join(demo, 'plan-4.json');
    await refused(
      1,
      'PLAN_OTHER_MODEL',
      /the plan has 8 MoE layers/,
      demoPlan,
      '--to',
      'sglang',
      '--model',
      at('dense-config.json'),
    );
    await refused(1, 'PLAN_OTHER_MODEL', /8 MoE layers.*7/, demoPlan, '--to', 'sglang', '--dense-layers', '3');
    const forged = keep('forged.json', { ...plan, modelFingerprint: '0123456789abcdef' });
    await refused(1, 'PLAN_OTHER_MODEL', /the plan is for model 0123456789abcdef/, forged, '--to', 'sglang');
    await refused(2, 'USAGE_MISSING_ARGUMENT', /PLAN is missing/, '--to', 'sglang');
    await refused(2, 'USAGE_MISSING_FLAG', /--to is missing/, demoPlan);
    await refused(2, 'USAGE_BAD_VALUE', /--to: "slang" is not known/, demoPlan, '--to', 'slang');
    await refused(
      2,
      'USAGE_BAD_VALUE',
      /--backend: SGLang has no "deep"/,
      demoPlan,
      '--to',
      'sglang',
      '--backend',
      'deep',
    );
    await refused(2, 'USAGE_BAD_VALUE', /ends in .json/, demoPlan, '--to', 'sglang', '--out', 'x.pt');
    await refused(2, 'USAGE_BAD_VALUE', /--out: there is no folder/, demoPlan, '--to', 'sglang', '--out', 'no/x.json');
    await refused(2, 'USAGE_BAD_VALUE', /--dense-layers/, demoPlan, '--to', 'sglang', '--dense-layers', 'a');
    await refused(1, 'EXPORT_CONFIG', /no such file/, demoPlan, '--to', 'sglang', '--model', at('absent'));
    assert.equal((await smoe('export', at('absent.json'), '--to', 'sglang')).status, 1);
  });

  it('checks files: what was changed, and what an engine would choke on', async () => {
    const check = ['--to', 'sglang', '--model', at('dense-config.json'), '--check'];
    let maps = 0;
    const map = (rows: number[][], extra = {}): string =>
      write(`map-${++maps}.json`, { physical_to_logical_map: rows, ...extra });
    const row = [0, 1, 2, 3, 4, 5, 6, 7];
    assert.equal((await smoe('export', ...check, map([row, row, row]), '--ranks', '2')).status, 0);
    await refused(2, 'USAGE_MISSING_FLAG', /--ranks is missing/, ...check, map([row, row, row]));
    const bad: [RegExp, string][] = [
      [/the one key physical_to_logical_map/, map([row, row, row], { promise: 1 })],
      [/2 layers, the model has 3/, map([row, row])],
      [/layer 1: 6 slots, 8 in layer 0/, map([row, row.slice(2), row])],
      [/layer 0: expert 8 of 8/, map([[8, ...row.slice(1)], row, row])],
      [/layer 2, rank 0: expert 1 is there twice/, map([row, row, [1, 1, ...row.slice(2)]])],
      [/not a list of whole numbers/, map([row, row, [0.5, ...row.slice(1)]])],
    ];
    for (const [message, path] of bad) await refused(1, 'EXPORT_INVALID', message, ...check, path, '--ranks', '2');
  });

  it('notices a file that changed since it was exported', async () => {
    await exported(join(demo, 'plan-4.json'), '--to', 'sglang', '--out', 'edited.json');
    writeFileSync(at('edited.json'), `${readFileSync(at('edited.json'), 'utf8')} `);
    await refused(1, 'EXPORT_INVALID', /changed since it was exported/, '--to', 'sglang', '--check', 'edited.json');
    await refused(1, 'EXPORT_UNREADABLE', /cannot be read/, '--to', 'sglang', '--check', 'gone.json');
    await refused(3, 'PLAN_LAYOUT', /made for 4 ranks, not 2/, '--to', 'sglang', '--check', 's.json', '--ranks', '2');
    await refused(1, 'EXPORT_INVALID', /exported for sglang, not vllm/, '--to', 'vllm', '--check', 's.json');
  });

  it('leaves nothing behind when Ctrl-C ends the copying of a checkpoint', async () => {
    const before = readdirSync(directory);
    const interruption = new AbortController();
    let written: string[] = [];
    let stderr = '';
    const status = await runCommandLine(
      commandLineOf('0.0.0'),
      ['export', join(demo, 'plan-4.json'), '--to', 'vllm', '--format', 'checkpoint', '--out', at('interrupted')],
      {
        stdout: { write: () => {} },
        // A terminal is told how far the copy is: the moment to interrupt it.
        stderr: {
          isTTY: true,
          write(text: string) {
            stderr += text;
            if (interruption.signal.aborted || !text.startsWith('copying: ')) return;
            written = readdirSync(directory).filter((name) => name.startsWith('interrupted'));
            interruption.abort();
          },
        },
        environment: { SMOE_CACHE: directory },
      },
      interruption.signal,
    );
    assert.match(written.join(), /^interrupted\.\d+\.tmp$/, 'was not interrupted while it copied');
    assert.equal(status, 130);
    assert.match(stderr, /error INTERRUPTED: /);
    assert.deepEqual(readdirSync(directory), before);
  });

  it('renumbers a checkpoint: same text, other numbers', async () => {
    const report = await exported(
      join(demo, 'plan-4.json'),
      '--to',
      'vllm',
      '--format',
      'checkpoint',
      '--out',
      'renumbered',
    );
    assert.deepEqual(report.launch.slice(0, 3), ['vllm', 'serve', at('renumbered')]);
    assert.ok(!existsSync(at('renumbered/heldout')));
    const generate = async (model: string): Promise<string> => {
      const { status, stdout, stderr } = await smoe(
        ...['generate', '--model', model, '--prompt', 'The printf function', '--max-new-tokens', '24', '--json'],
      );
      assert.equal(status, 0, stderr);
      return (JSON.parse(stdout) as { text: string }).text;
    };
    const original = await generate(demo);
    assert.ok(original.length > 10);
    assert.equal(await generate(at('renumbered')), original);
    await refused(
      2,
      'EXPORT_EXISTS',
      /renumbered: is there already/,
      join(demo, 'plan-4.json'),
      '--to',
      'vllm',
      '--format',
      'checkpoint',
      '--out',
      'renumbered',
    );
    await refused(
      3,
      'EXPORT_INFEASIBLE',
      /copies/,
      keep('c3.json', small([[2, 7], [3]])),
      '--to',
      'vllm',
      '--format',
      'checkpoint',
      '--model',
      at('dense-config.json'),
    );
  });
});
