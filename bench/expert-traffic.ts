/**
 * What every schedule and predictor sends for the shipped model's evaluation text: `node dist/bench/expert-traffic.js`
 * [--prompts N] [--replicas PLAN.json] [--tp-only]. Four ranks; prompts of up to 256 tokens, 16 new tokens each; the shipped plan, made from the profile text only.
 * Baselines run on contiguous placement. Bytes are payload to other ranks, so they do not depend on the machine. `busiest
 * rank MB` adds up, over all dispatches and combines, the most that any one rank sends or receives: what an exchange waits for on slow links.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { purposes } from '../src/comm/communicator.ts';
import { contiguousPlan } from '../src/plan/contiguous-plan.ts';
import type { GenerationRequest, Layout, RunReport, ScheduleName } from '../src/engine/api.ts';
import { openSession } from '../src/engine/session.ts';
import { openCheckpoint } from '../src/model/checkpoint.ts';
import { fingerprint } from '../src/model/fingerprint.ts';
import { loadTokenizer } from '../src/model/tokenizer.ts';
import type { Plan, PredictorName } from '../src/plan/plan.ts';
import { readPlan } from '../src/plan/plan-file.ts';
import { machine } from './machine.ts';

const { values: options } = parseArgs({
  options: {
    prompts: { type: 'string', default: '96' },
    replicas: { type: 'string' },
    'tp-only': { type: 'boolean', default: false },
  },
});
const directory = fileURLToPath(new URL('../../models/demo', import.meta.url));

interface Setup {
  plan: 'contiguous' | 'grouped' | 'replicas';
  schedule: ScheduleName;
  predictor: PredictorName | undefined;
}

const setups: Setup[] = [
  { plan: 'contiguous', schedule: 'deepspeed-moe', predictor: undefined },
  { plan: 'contiguous', schedule: 'alltoallv', predictor: undefined },
  { plan: 'contiguous', schedule: 'dedup', predictor: undefined },
  { plan: 'grouped', schedule: 'dedup', predictor: undefined },
  { plan: 'grouped', schedule: 'speculative', predictor: 'random' },
  { plan: 'grouped', schedule: 'speculative', predictor: 'transition' },
  { plan: 'grouped', schedule: 'speculative', predictor: 'token' },
  { plan: 'grouped', schedule: 'speculative', predictor: 'pregate' },
  { plan: 'grouped', schedule: 'speculative', predictor: 'combined' },
  { plan: 'replicas', schedule: 'dedup', predictor: undefined },
  { plan: 'replicas', schedule: 'speculative', predictor: 'token' },
  { plan: 'replicas', schedule: 'speculative', predictor: 'combined' },
];

function requests(count: number): GenerationRequest[] {
  const tokenizer = loadTokenizer(directory);
  const lines = readFileSync(join(directory, 'heldout/evaluation.jsonl'), 'utf8').trim().split('\n');
  const step = lines.length / Math.min(count, lines.length);
  return Array.from({ length: Math.min(count, lines.length) }, (_, i) => {
    const { text, domain } = JSON.parse(lines[Math.floor(i * step)]!) as { text: string; domain: string };
    return {
      tokens: tokenizer.encode(text).slice(0, 256),
      maxNewTokens: 16,
      sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
      stopStrings: [],
      ignoreEnd: true,
      label: domain,
    };
  });
}

const checkpoint = openCheckpoint(directory);
const model = { config: checkpoint.config, fingerprint: fingerprint(checkpoint) };
checkpoint.close();
const plans: Record<Setup['plan'], Plan | undefined> = {
  contiguous: contiguousPlan(model, 4),
  grouped: readPlan(join(directory, 'plan-4.json')),
  replicas: options.replicas === undefined ? undefined : readPlan(options.replicas),
};

async function measure(layout: Layout, work: GenerationRequest[]): Promise<{ setup: Setup; report: RunReport }[]> {
  const results: { setup: Setup; report: RunReport }[] = [];
  for (const name of ['contiguous', 'grouped', 'replicas'] as const) {
    const plan = plans[name];
    if (plan === undefined) continue;
    const session = await openSession({
      modelDirectory: directory,
      layout,
      plan,
      transport: 'threads',
      maximumStepTokens: 256,
      cachePositions: 16_384,
    });
    for (const setup of setups.filter(({ plan }) => plan === name)) {
      // With one tensor rank no token can be moved, so predictors differ in nothing.
      if (layout.tensorParallel === 1 && setup.schedule === 'speculative' && setup.predictor !== 'combined') continue;
      const { schedule, predictor = 'token' } = setup;
      const run = { schedule, predictor, requests: work, logits: 'none', recordRouting: false } as const;
      // Bytes, not latency, are what is measured.
      const report = await session.run({ ...run, oneShotTokens: 0, timelineSteps: Number.MAX_SAFE_INTEGER });
      results.push({ setup, report });
    }
    await session.close();
  }
  return results;
}

/** Sum over expert exchanges of the most any rank sends or receives, and of what an even spread would make it. */
function busiestRank({ timeline }: RunReport): { busiest: number; even: number } {
  const ranks = timeline!.map(({ exchanges }) => exchanges);
  let [busiest, even] = [0, 0];
  ranks[0]!.purpose.forEach((purpose, i) => {
    if (purposes[purpose] !== 'dispatch' && purposes[purpose] !== 'combine') return;
    busiest += Math.max(...ranks.flatMap(({ sent, received }) => [sent[i]!, received[i]!]));
    even += ranks.reduce((sum, { sent }) => sum + sent[i]!, 0) / ranks.length;
  });
  return { busiest, even };
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
const work = requests(Number(options.prompts));
console.log(`${machine()}; ${work.length} prompts of up to 256 tokens, 16 new tokens each\n`);
for (const layout of [
  { dataParallel: 1, tensorParallel: 4 },
  { dataParallel: 2, tensorParallel: 2 },
  { dataParallel: 4, tensorParallel: 1 },
]) {
  if (options['tp-only'] && layout.dataParallel > 1) continue;
  const results = await measure(layout, work);
  const expertBytes = ({ bytes }: RunReport): number => bytes.dispatch + bytes.combine;
  const baseline = (schedule: ScheduleName): number =>
    expertBytes(results.find(({ setup }) => setup.plan === 'contiguous' && setup.schedule === schedule)!.report);
  const change = (report: RunReport, schedule: ScheduleName): string =>
    `${((100 * expertBytes(report)) / baseline(schedule) - 100).toFixed(1)} %`;
  console.log(`dp ${layout.dataParallel} x tp ${layout.tensorParallel}\n`);
  console.log(
    '| schedule | placement | predictor | EP MB | against deepspeed-moe | alltoallv | dedup | busiest rank MB | over even | attention MB | control MB | remote devices per token | LAR | recall | imbalance |',
  );
  console.log('|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|');
  for (const { setup, report } of results) {
    const cells = [
      setup.schedule,
      setup.plan,
      setup.predictor ?? '-',
      megabytes(expertBytes(report)),
      change(report, 'deepspeed-moe'),
      change(report, 'alltoallv'),
      change(report, 'dedup'),
      megabytes(busiestRank(report).busiest),
      (busiestRank(report).busiest / busiestRank(report).even).toFixed(2),
      megabytes(report.bytes.attention),
      megabytes(report.bytes.control),
      report.remoteDevicesPerToken.toFixed(3),
      `${(100 * report.localActivationRate).toFixed(1)} %`,
      `${(100 * report.recall).toFixed(1)} %`,
      report.loadImbalance.toFixed(2),
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
  const outputs = new Set(results.map(({ report }) => report.outputSha256));
  console.log(`\noutputs: ${outputs.size === 1 ? 'the same tokens everywhere' : `${outputs.size} DIFFERENT`}\n`);
}
