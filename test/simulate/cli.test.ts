import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runCommandLine } from '../../src/cli/command-line.ts';
import { simulateVerb } from '../../src/cli/simulate.ts';
import type { SimulationReport } from '../../src/cli/simulate-text.ts';
import { writePlan } from '../../src/plan/plan-file.ts';
import { writeTrace } from '../../src/trace/parquet.ts';
import { smallPlan, smallShape, smallTrace } from './small.ts';

let folder = '';
const at = (name: string): string => join(folder, name);

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'simulate-'));
  const trace = smallTrace(20, 24);
  writeTrace(at('t.parquet'), trace);
  const plan = smallPlan(trace, 4);
  writePlan(at('dealt.json'), plan);
  writePlan(at('reversed.json'), { ...plan, expertOwner: plan.expertOwner.toReversed(), solver: 'reversed' });
  const { layers, experts, topK, hiddenSize, heads, keyValueHeads, headDimension, expertWidth, vocabularySize } =
    smallShape;
  const config = {
    ...{
      architectures: ['Qwen3MoeForCausalLM'],
      model_type: 'qwen3_moe',
      num_hidden_layers: layers,
      hidden_size: hiddenSize,
    },
    ...{
      vocab_size: vocabularySize,
      num_attention_heads: heads,
      num_key_value_heads: keyValueHeads,
      head_dim: headDimension,
    },
    ...{
      num_experts: experts,
      num_experts_per_tok: topK,
      moe_intermediate_size: expertWidth,
      max_position_embeddings: 64,
    },
    ...{ norm_topk_prob: true, hidden_act: 'silu', tie_word_embeddings: true },
  };
  writeFileSync(at('config.json'), JSON.stringify(config));
});
after(() => rmSync(folder, { recursive: true }));

interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

function smoe(...args: string[]): Promise<Outcome> {
  return smoeOn('t.parquet', ...args);
}

async function smoeOn(trace: string, ...args: string[]): Promise<Outcome> {
  const outcome = { status: -1, stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => ({ write: (text: string) => (outcome[name] += text) });
  const terminal = { stdout: stream('stdout'), stderr: stream('stderr'), environment: {} };
  const commandLine = { summary: '', version: '0', verbs: [simulateVerb], examples: [] };
  const argv = ['simulate', at(trace), '--model', folder, ...args];
  outcome.status = await runCommandLine(commandLine, argv, terminal, new AbortController().signal);
  return outcome;
}

describe('smoe simulate', () => {
  const plans = (): string[] => ['--plan', at('dealt.json'), '--plan', at('reversed.json'), '--predictor', 'token'];

  it('reports every plan under every schedule, in the fields of smoe compare', async () => {
    const { status, stdout } = await smoe(...plans(), '--json');
    assert.equal(status, 0);
    const report = JSON.parse(stdout) as SimulationReport;
    assert.deepEqual(report.layout, { dp: 1, tp: 4, ep: 4 });
    assert.equal(report.network, '4 hosts on 1 Gbit/s Ethernet');
    assert.equal(report.promptTokens + report.generatedTokens, 20 * 24);
    assert.deepEqual(
      report.schedules.map(({ plan, name }) => `${plan} ${name}`),
      ['dealt', 'reversed'].flatMap((plan) =>
        ['deepspeed-moe', 'alltoallv', 'dedup', 'speculative'].map((name) => `${plan} ${name}`),
      ),
    );
    for (const { bytes, layers, stepMs, recall, predictor } of report.schedules) {
      assert.equal(bytes.total, bytes.attention + bytes.dispatch + bytes.combine + bytes.control);
      assert.equal(layers.length, smallShape.layers);
      assert.ok(stepMs.p50 > 0);
      assert.equal(recall === null, predictor === null);
    }
  });

  it('prints tables and notes', async () => {
    const { stdout } = await smoe(...plans(), '--schedule', 'dedup,gather-all', '--cluster', 'nvlink-8', '--per-layer');
    assert.match(stdout, /4 ranks \(dp 1, tp 4\), simulated on 8 GPUs on NVLink/);
    assert.match(stdout, /note \(gather-all, dealt; gather-all, reversed\): every row goes to every rank/);
    assert.match(stdout, /reversed +dedup +2 +\d+\.\d{3} {2}device \d inside node 0, (in|out) +\d\n/);
    assert.match(stdout, /[^\n]\n$/);
  });

  it('tells of every step when asked to', async () => {
    const text = await smoe(...plans(), '--schedule', 'dedup', '--per-step', '--steps', '1');
    assert.match(text.stdout, /dealt +dedup +0 +240 +0 +\d+\.\d{3} {2}host \d to the network, (in|out) +\d\n/);
    const stepsOf = async (...args: string[]): Promise<number | undefined> => {
      const { stdout } = await smoe(...plans(), '--schedule', 'dedup', '--steps', '1', '--json', ...args);
      return (JSON.parse(stdout) as SimulationReport).schedules[0]!.stepTimes?.length;
    };
    assert.equal(await stepsOf(), undefined);
    assert.equal(await stepsOf('--per-step'), 1);
  });

  it('serves traces without token ids, and plans solved from one, with the pregate', async () => {
    const trace = smallTrace(20, 24);
    trace.token.fill(-1);
    trace.model = { ...trace.model, vocabularySize: 0 };
    writeTrace(at('no-ids.parquet'), trace);
    const plan = smallPlan(smallTrace(20, 24), 4);
    writePlan(at('no-ids.json'), { ...plan, vocabularySize: 0, prediction: undefined });
    const args = ['--plan', at('no-ids.json'), '--schedule', 'speculative', '--steps', '1', '--json'];
    const { stdout, stderr, status } = await smoeOn('no-ids.parquet', ...args);
    assert.equal(status, 0, stderr);
    assert.match(stderr, /token ids are unknown/);
    assert.equal((JSON.parse(stdout) as SimulationReport).schedules[0]!.predictor, 'pregate');
    const asked = await smoeOn('no-ids.parquet', ...args, '--predictor', 'token');
    assert.match(asked.stderr + asked.stdout, /PLAN_NO_TABLES|SIMULATE_NO_TOKENS/);
    const known = await smoe(...args, '--predictor', 'pregate');
    assert.equal(known.status, 0, known.stderr);
  });

  it('takes every device of the cluster when no plan file says how many', async () => {
    const { stdout } = await smoe(
      '--plan',
      'contiguous',
      '--schedule',
      'dedup',
      '--cluster',
      'infiniband-2x8',
      '--json',
    );
    const { layout } = JSON.parse(stdout) as SimulationReport;
    assert.deepEqual(layout, { dp: 1, tp: 8, ep: 8 });
  });

  it('solves plans by name from requests it does not replay', async () => {
    const { status, stdout, stderr } = await smoe('--plan', 'contiguous', '--schedule', 'dedup', '--json');
    assert.equal(status, 0, stderr);
    const report = JSON.parse(stdout) as SimulationReport;
    assert.equal(report.prompts, 16);
    assert.equal(report.schedules[0]!.plan, 'contiguous');
  });

  it('sweeps link speed and ranks, draws the sweep, writes a timeline', async () => {
    const files = ['--figure', at('sweep.svg'), '--chrome-trace', at('steps.json')];
    const bandwidth = await smoe(...plans(), '--sweep', 'bandwidth=0.01,1,100', '--overlap', 'on', ...files, '--json');
    assert.equal(bandwidth.status, 0, bandwidth.stderr);
    const { sweep } = JSON.parse(bandwidth.stdout) as SimulationReport;
    assert.deepEqual(sweep!.baseline, { plan: 'dealt', schedule: 'dedup' });
    assert.equal(sweep!.series.length, 8);
    assert.match(readFileSync(at('sweep.svg'), 'utf8'), /^<svg/);
    assert.ok(
      (JSON.parse(readFileSync(at('steps.json'), 'utf8')) as { traceEvents: unknown[] }).traceEvents.length > 100,
    );
    const ranks = await smoe(...plans(), '--sweep', 'ep=1,2,3,4', '--json');
    const { series } = (JSON.parse(ranks.stdout) as SimulationReport).sweep!;
    assert.ok(series.every(({ points }) => points.length === 4 && points[2] === null && points[3] !== null));
  });

  const refusals: [string[], string, number][] = [
    [['--cluster', 'nowhere.yaml'], 'CLUSTER_UNREADABLE', 2],
    [['--tp', '8'], 'CLUSTER_TOO_FEW_DEVICES', 3],
    [['--sweep', 'ep=2,64'], 'CLUSTER_TOO_FEW_DEVICES', 3],
    [['--sweep', 'speed=2'], 'USAGE_BAD_VALUE', 2],
    [['--figure', 'x.svg'], 'USAGE_BAD_VALUE', 2],
    [['--predictor', 'tea-leaves'], 'USAGE_BAD_VALUE', 2],
    [['--schedule', 'none'], 'USAGE_BAD_VALUE', 2],
    [['--plan', 'missing.json'], 'PLAN_UNREADABLE', 1],
  ];
  for (const [args, code, exit] of refusals) {
    it(`refuses ${args.join(' ')}: ${code}`, async () => {
      const own =
        args[0] === '--plan' ? [] : args[1] === '8' ? ['--plan', 'contiguous', '--schedule', 'dedup'] : plans();
      const { status, stderr } = await smoe(...own, ...args);
      assert.match(stderr, new RegExp(`error ${code}: `));
      assert.equal(status, exit);
    });
  }
});
