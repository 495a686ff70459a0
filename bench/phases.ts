/**
 * Where steps spend their time, schedule by schedule: `node dist/bench/phases.js` [--prompts N] [--prompt-tokens N] [--new-tokens N]
 * [--rounds N]. Four ranks as threads, schedules taking turns. Milliseconds per step and rank, medians over rounds of the mean over
 * ranks; `shuffling` is what predicting, cutting slices and permuting rows take of the step (bar: 2 %).
 */
import { parseArgs } from 'node:util';
import { contiguousPlan } from '../src/plan/contiguous-plan.ts';
import { demoDirectory } from '../src/cli/model-directory.ts';
import type { Layout, RunReport, ScheduleName, Session } from '../src/engine/api.ts';
import { openSession } from '../src/engine/session.ts';
import { openCheckpoint } from '../src/model/checkpoint.ts';
import { fingerprint } from '../src/model/fingerprint.ts';
import { readPlan } from '../src/plan/plan-file.ts';
import type { PredictorName } from '../src/plan/plan.ts';
import { stepKinds, type StepKind } from '../src/timeline/phase-clock.ts';
import { sumOfPhases } from '../src/timeline/phase-times.ts';
import { phaseNames, type PhaseName, shufflePhases } from '../src/timeline/phases.ts';
import { evaluationRequests } from './evaluation-requests.ts';
import { machine, median } from './machine.ts';

const { values: options } = parseArgs({
  options: {
    prompts: { type: 'string', default: '8' },
    'prompt-tokens': { type: 'string', default: '256' },
    'new-tokens': { type: 'string', default: '16' },
    'step-tokens': { type: 'string', default: '512' },
    rounds: { type: 'string', default: '7' },
    dp: { type: 'string', default: '1' },
  },
});

interface Setup {
  name: string;
  session: 'contiguous' | 'grouped';
  schedule: ScheduleName;
  predictor: PredictorName;
}

const setups: Setup[] = [
  { name: 'dedup, contiguous', session: 'contiguous', schedule: 'dedup', predictor: 'token' },
  { name: 'dedup, grouped', session: 'grouped', schedule: 'dedup', predictor: 'token' },
  { name: 'speculative, token', session: 'grouped', schedule: 'speculative', predictor: 'token' },
  { name: 'speculative, combined', session: 'grouped', schedule: 'speculative', predictor: 'combined' },
];

const checkpoint = openCheckpoint(demoDirectory);
const contiguous = contiguousPlan({ config: checkpoint.config, fingerprint: fingerprint(checkpoint) }, 4);
checkpoint.close();
const dataParallel = Number(options.dp);
const layout: Layout = { dataParallel, tensorParallel: 4 / dataParallel };
const open = (plan: typeof contiguous): Promise<Session> =>
  openSession({
    ...{ modelDirectory: demoDirectory, layout, plan, transport: 'threads' },
    maximumStepTokens: Number(options['step-tokens']),
    cachePositions: 16_384,
  });
const sessions = { contiguous: await open(contiguous), grouped: await open(readPlan(`${demoDirectory}/plan-4.json`)) };
const requests = evaluationRequests(
  Number(options.prompts),
  Number(options['prompt-tokens']),
  Number(options['new-tokens']),
);

const reports = new Map<Setup, RunReport[]>(setups.map((setup) => [setup, []]));
for (let round = -1; round < Number(options.rounds); round++) {
  for (const [turn] of setups.entries()) {
    const setup = setups[(turn + round + setups.length) % setups.length]!;
    const { schedule, predictor } = setup;
    const run = { schedule, predictor, requests, logits: 'none', recordRouting: false, oneShotTokens: 0 } as const;
    const report = await sessions[setup.session].run(run);
    if (round >= 0) reports.get(setup)!.push(report);
  }
}
await sessions.contiguous.close();
await sessions.grouped.close();

const isKind = (kind: StepKind) => (phase: string) => (phase === 'decode') === (kind === 'decode');
/** Median over rounds of the mean over ranks, per step. */
const perStep = (setup: Setup, kind: StepKind, names: readonly PhaseName[]): number =>
  median(
    reports.get(setup)!.map(({ phases, steps }) => {
      const count = steps.filter(({ phase }) => isKind(kind)(phase)).length;
      return phases.reduce((sum, times) => sum + sumOfPhases(times[kind], names), 0) / phases.length / count;
    }),
  );

console.log(
  `${machine()}; dp ${layout.dataParallel} x tp ${layout.tensorParallel}, ${requests.length} prompts of ` +
    `${options['prompt-tokens']} tokens, ${options['new-tokens']} new tokens, ${options.rounds} interleaved rounds`,
);
for (const kind of stepKinds) {
  console.log(`\nsteps that ${kind === 'decode' ? 'only decode' : 'compute prompts'}, ms per step\n`);
  console.log(`| phase | ${setups.map(({ name }) => name).join(' | ')} |`);
  console.log(`|---|${setups.map(() => '---:|').join('')}`);
  const row = (name: string, value: (setup: Setup) => string): void =>
    console.log(`| ${name} | ${setups.map(value).join(' | ')} |`);
  for (const name of phaseNames) row(name, (setup) => perStep(setup, kind, [name]).toFixed(3));
  row('**whole step**', (setup) => perStep(setup, kind, phaseNames).toFixed(3));
  row('shuffling', (setup) => {
    const share = perStep(setup, kind, shufflePhases) / perStep(setup, kind, phaseNames);
    return `${(100 * share).toFixed(2)} %`;
  });
}
