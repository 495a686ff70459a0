/**
 * The simulator against real runs of the shipped model:
 *
 *   node dist/bench/simulator.js [PLAN] [--cluster FILE] [--repeats N] [--computing]
 *
 * FILE describes this machine (`smoe calibrate --out FILE`). Prints computing time of one rank and of four, and whole runs of four ranks (not
 * with --computing, which other work on the machine disturbs less), as modelled and as measured; what assuming a pregate's hits does to
 * the bytes; how fast traces are replayed. Bytes of every other predictor are exact (test/simulate/replay.test.ts).
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { demoDirectory, demoEvaluation } from '../src/cli/model-directory.ts';
import type { TimedStep } from '../src/calibrate/engine-rank.ts';
import { loadCluster } from '../src/cluster/cluster-file.ts';
import type { GenerationRequest, Layout, RunOptions, RunReport } from '../src/engine/api.ts';
import { launchRanks } from '../src/comm/rank-group.ts';
import type { RankData, RankJob } from '../src/engine/rank-protocol.ts';
import { openSession } from '../src/engine/session.ts';
import { openCheckpoint } from '../src/model/checkpoint.ts';
import { fingerprint } from '../src/model/fingerprint.ts';
import { loadTokenizer } from '../src/model/tokenizer.ts';
import type { Plan } from '../src/plan/plan.ts';
import { readPlan } from '../src/plan/plan-file.ts';
import { solvePlan } from '../src/plan/solve.ts';
import { modelShape } from '../src/simulate/model-shape.ts';
import { simulate, type SimulationOptions, type SimulationResult } from '../src/simulate/simulate.ts';
import { machine, median } from './machine.ts';

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cluster: { type: 'string', default: 'ethernet-1g-4' },
    repeats: { type: 'string', default: '5' },
    computing: { type: 'boolean' },
  },
});
const cluster = loadCluster(flags.cluster);
const stepTokens = 256;
const texts = readFileSync(demoEvaluation, 'utf8').trim().split('\n');
const tokenizer = loadTokenizer(demoDirectory);
const checkpoint = openCheckpoint(demoDirectory);
const { config } = checkpoint;
const modelFingerprint = fingerprint(checkpoint);
checkpoint.close();

function requests(count: number, promptTokens: number, maxNewTokens: number): GenerationRequest[] {
  return Array.from({ length: count }, (_, i) => ({
    tokens: tokenizer.encode((JSON.parse(texts[i * 7]!) as { text: string }).text).slice(0, promptTokens),
    maxNewTokens,
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
    stopStrings: [],
    ignoreEnd: true,
    label: '',
  }));
}

async function measure(
  plan: Plan,
  layout: Layout,
  jobs: GenerationRequest[],
  repeats: number,
  change: Partial<RunOptions> = {},
): Promise<RunReport[]> {
  const session = await openSession({
    ...{ modelDirectory: demoDirectory, layout, plan, transport: 'threads', maximumStepTokens: stepTokens },
    cachePositions: 8192,
  });
  const reports: RunReport[] = [];
  for (let i = 0; i < repeats; i++) {
    const run = { schedule: 'speculative', predictor: 'pregate', requests: jobs, logits: 'none', ...change } as const;
    reports.push(await session.run({ ...run, recordRouting: i === 0 }));
  }
  await session.close();
  return reports;
}

function replay(
  report: RunReport,
  plan: Plan,
  layout: Layout,
  change: Partial<SimulationOptions> = {},
): SimulationResult {
  const [result] = simulate({
    ...{ trace: report.trace!, shape: modelShape(config), plan, schedule: 'speculative', predictor: 'pregate', layout },
    ...{ composition: { stepTokens, decodeBatch: stepTokens, phases: 'recorded' }, overlap: false },
    clusters: [cluster],
    ...change,
  });
  return result!;
}

/** What the threads of all ranks compute in one run, the least of a few. */
async function computedMs(
  plan: Plan,
  layout: Layout,
  jobs: GenerationRequest[],
  schedule: RunOptions['schedule'],
): Promise<number> {
  const size = layout.dataParallel * layout.tensorParallel;
  const data: RankData = { modelDirectory: demoDirectory, layout, plans: [{ plan }], stepTokens, cachePositions: 8192 };
  const entry = new URL('../src/calibrate/engine-rank.js', import.meta.url);
  const group = await launchRanks<RankJob, TimedStep[]>({ size, entry, data });
  const job: RankJob = {
    ...{
      plan: 0,
      schedule,
      predictor: 'pregate',
      requests: jobs,
      logits: 'none',
      recordRouting: false,
      overlap: [],
      compactRows: false,
      oneShotTokens: 0,
      timelineSteps: 0,
    },
    ...{ placement: new Int32Array(jobs.length), firstRecordRow: new Int32Array(jobs.length), streaming: true },
  };
  const totals: number[] = [];
  for (let i = 0; i < 3; i++) {
    const reports = await group.run(job);
    totals.push(1000 * reports.flat().reduce((sum, { seconds }) => sum + seconds, 0));
  }
  await group.close();
  return Math.min(...totals);
}

const oneRank: Layout = { dataParallel: 1, tensorParallel: 1 };
const { layers, experts } = config;
const recording = requests(8, 64, 2);
const shell: Plan = {
  ...{ version: 1, modelFingerprint, devices: 1, layers, experts, topK: config.topK, solver: 'one device' },
  ...{ vocabularySize: config.vocabularySize, expertOwner: new Uint16Array(layers * experts) },
  ...{ replicas: Array.from({ length: layers }, () => [[]]), prediction: undefined, promise: undefined },
};

console.log(`${machine()}; modelled as ${cluster.name}\n`);
console.log('computing on one rank, CPU milliseconds: modelled, measured at best, ratio');
for (const [name, jobs] of [
  ['prefill, 8 prompts of 256', requests(8, 256, 1)],
  ['decode, 8 sequences, 32 tokens', requests(8, 1, 32)],
  ['decode, 32 sequences, 16 tokens', requests(26, 1, 16)],
] as const) {
  const [recorded] = await measure(shell, oneRank, jobs, 1);
  const modelled = replay(recorded!, shell, oneRank, { predictor: 'random' }).totalMs;
  const measured = await computedMs(shell, oneRank, jobs, 'speculative');
  const figures = [modelled.toFixed(1), measured.toFixed(1), (modelled / measured).toFixed(2)];
  console.log(`  ${name.padEnd(34)}${figures.map((figure) => figure.padStart(9)).join('')}`);
}

const [profile] = await measure(shell, oneRank, recording, 1);
const plan = positionals[0] === undefined ? await solvePlan(profile!.trace!, { devices: 4 }) : readPlan(positionals[0]);
const fourRanks: Layout = { dataParallel: 1, tensorParallel: 4 };

/** Time of whole runs of four ranks: as modelled on the cluster, and on this machine. */
async function compareRuns(): Promise<void> {
  console.log('\nwhole runs on four ranks, milliseconds: modelled, measured (median), ratio');
  const ratios: number[] = [];
  for (const [what, jobs] of [
    ['prefill, 4 prompts of 256', requests(4, 256, 1)],
    ['decode, 8 sequences, 16 tokens', requests(8, 16, 16)],
  ] as const) {
    for (const layout of [fourRanks, { dataParallel: 2, tensorParallel: 2 }, { dataParallel: 4, tensorParallel: 1 }]) {
      for (const schedule of ['alltoallv', 'dedup', 'speculative'] as const) {
        const [recorded, ...timed] = await measure(plan, layout, jobs, Number(flags.repeats) + 1, { schedule });
        const modelled = replay(recorded!, plan, layout, { schedule }).totalMs;
        const total = ({ steps }: RunReport): number => steps.reduce((sum, step) => sum + step.milliseconds, 0);
        const measured = median(timed.map(total));
        ratios.push(modelled / measured);
        const figures = [modelled.toFixed(1), measured.toFixed(1), (modelled / measured).toFixed(2)];
        const name = `${what}, dp ${layout.dataParallel} tp ${layout.tensorParallel}, ${schedule}`;
        console.log(`  ${name.padEnd(56)}${figures.map((figure) => figure.padStart(9)).join('')}`);
      }
    }
  }
  const misses = ratios.map((ratio) => Math.abs(ratio - 1));
  console.log(
    `  median miss ${(median(misses) * 100).toFixed(1)} %, largest ${(Math.max(...misses) * 100).toFixed(1)} %`,
  );
}

console.log(
  '\ncomputing of four ranks together, CPU milliseconds, copies of collectives included: modelled, measured, ratio',
);
for (const schedule of ['dedup', 'speculative'] as const) {
  for (const [what, jobs] of [
    ['prefill, 4 prompts of 256', requests(4, 256, 1)],
    ['decode, 8 sequences, 16 tokens', requests(8, 16, 16)],
  ] as const) {
    const [recorded] = await measure(plan, fourRanks, jobs, 1, { schedule });
    const { busiestRank } = replay(recorded!, plan, fourRanks, { schedule });
    const modelled = (4 * busiestRank.computeMs) / busiestRank.overMean;
    const measured = await computedMs(plan, fourRanks, jobs, schedule);
    const figures = [modelled.toFixed(1), measured.toFixed(1), (modelled / measured).toFixed(2)];
    console.log(`  ${`${what}, ${schedule}`.padEnd(56)}${figures.map((figure) => figure.padStart(9)).join('')}`);
  }
}
if (flags.computing !== true) await compareRuns();

const [real] = await measure(plan, fourRanks, requests(8, 128, 8), 1);
console.log('\npregate, 4 ranks: expert bytes of a replay with assumed hits against the real run');
for (const [first, others] of [
  [0.25, 0.8],
  [0.5, 0.5],
  [0.5, 0.8],
  [0.8, 0.8],
  [1, 1],
] as const) {
  const assumed = new Float64Array(layers).fill(others);
  assumed[0] = first;
  const result = replay(real!, plan, fourRanks, { pregateOverlap: assumed });
  const change = (bytes: RunReport['bytes']): number =>
    (result.bytes.dispatch + result.bytes.combine) / (bytes.dispatch + bytes.combine) - 1;
  const recall = `recall ${(result.recall * 100).toFixed(1)} % for ${(real!.recall * 100).toFixed(1)} %`;
  const hits = `hits ${first} in the first layer, ${others} later`;
  console.log(`  ${hits.padEnd(42)}${(change(real!.bytes) * 100).toFixed(2).padStart(7)} %   ${recall}`);
}
console.log(`  recall by layer: ${real!.layers.map(({ recall }) => recall.toFixed(3)).join(' ')}`);

const start = performance.now();
const rounds = 5;
for (let i = 0; i < rounds; i++) replay(real!, plan, fourRanks);
const seconds = (performance.now() - start) / 1000 / rounds;
const rows = real!.trace!.length * layers;
console.log(`\nreplay: ${(rows / seconds / 1e6).toFixed(2)} million (token, layer) rows per second`);
