/**
 * What each way of overlapping gains by itself: `node dist/bench/overlap.js` [--link RATE_MBIT,LATENCY_MS] [--prompts N]
 * [--prompt-tokens N] [--new-tokens N] [--rounds N] [--schedule NAME] [--microbatch-tokens N] [--mpirun-args ARGS]. Four ranks as
 * threads with emulated links (docs/overlap.md); without --link they share memory, where there is little to hide. On a testbed of
 * four ranks (`smoe testbed run --rate 100mbit -- node dist/bench/overlap.js`) they are MPI processes on its hosts. Choices take
 * turns in every round, so that they see the same machine; medians with quartiles, and the median of each round's ratio to `none`.
 */
import { parseArgs } from 'node:util';
import { demoDirectory } from '../src/cli/model-directory.ts';
import { contiguousPlan } from '../src/plan/contiguous-plan.ts';
import {
  fewestMicrobatchedTokens,
  type OverlapName,
  overlapNames,
  type RunReport,
  type ScheduleName,
} from '../src/engine/api.ts';
import { openSession } from '../src/engine/session.ts';
import { warmUp } from '../src/engine/warm-up.ts';
import { openCheckpoint } from '../src/model/checkpoint.ts';
import { fingerprint } from '../src/model/fingerprint.ts';
import { readPlan } from '../src/plan/plan-file.ts';
import { sumOfPhases, waitOfPhases } from '../src/timeline/phase-times.ts';
import { evaluationRequests } from './evaluation-requests.ts';
import { machine, median, quantile } from './machine.ts';
import { networkHere } from './network-here.ts';

const { values: options } = parseArgs({
  options: {
    link: { type: 'string' },
    prompts: { type: 'string', default: '4' },
    'prompt-tokens': { type: 'string', default: '512' },
    'new-tokens': { type: 'string', default: '16' },
    'step-tokens': { type: 'string', default: '512' },
    rounds: { type: 'string', default: '10' },
    schedule: { type: 'string', default: 'speculative' },
    'microbatch-tokens': { type: 'string', default: String(fewestMicrobatchedTokens) },
    'mpirun-args': { type: 'string', default: '' },
  },
});

const choices: { name: string; overlap: readonly OverlapName[] }[] = [
  { name: 'none', overlap: [] },
  { name: 'prepare', overlap: ['prepare'] },
  { name: 'gather', overlap: ['gather'] },
  { name: 'prepare, gather', overlap: ['prepare', 'gather'] },
  { name: 'microbatch', overlap: ['microbatch'] },
  { name: 'all', overlap: overlapNames },
];

const schedule = options.schedule as ScheduleName;
const network = networkHere(options.link, options['mpirun-args']);
const checkpoint = openCheckpoint(demoDirectory);
const contiguous = contiguousPlan({ config: checkpoint.config, fingerprint: fingerprint(checkpoint) }, 4);
checkpoint.close();
const session = await openSession({
  modelDirectory: demoDirectory,
  layout: { dataParallel: 1, tensorParallel: 4 },
  plan: schedule === 'speculative' ? readPlan(`${demoDirectory}/plan-4.json`) : contiguous,
  ...network.transport,
  maximumStepTokens: Number(options['step-tokens']),
  cachePositions: 16_384,
});
const requests = evaluationRequests(
  Number(options.prompts),
  Number(options['prompt-tokens']),
  Number(options['new-tokens']),
);
const reports: RunReport[][] = choices.map(() => []);
const runOf = ({ overlap }: (typeof choices)[0]): Promise<RunReport> =>
  session.run({
    ...{ schedule, predictor: 'combined', requests, logits: 'none', recordRouting: false },
    ...{ overlap, microbatchTokens: Number(options['microbatch-tokens']) },
  });
await warmUp(
  choices.map((choice) => () => runOf(choice)),
  3000,
);
for (let round = 0; round < Number(options.rounds); round++) {
  for (let turn = 0; turn < choices.length; turn++) {
    const choice = (turn + round) % choices.length;
    reports[choice]!.push(await runOf(choices[choice]!));
  }
}
await session.close();

console.log(
  `${machine()}; ${schedule}, 4 ranks over ${network.title}, ${requests.length} prompts of ${options['prompt-tokens']} tokens, ` +
    `${options['new-tokens']} new tokens, ${options.rounds} interleaved rounds\n`,
);
console.log(
  '| overlap | prefill step ms | quartiles | against none | decode step ms | quartiles | against none | waiting | messages |',
);
console.log('|---|---:|---|---:|---:|---|---:|---:|---:|');
const stepMs = ({ steps }: RunReport, decode: boolean): number =>
  median(steps.filter(({ phase }) => (phase === 'decode') === decode).map(({ milliseconds }) => milliseconds));
choices.forEach(({ name }, choice) => {
  const cells = [false, true].flatMap((decode) => {
    const values = reports[choice]!.map((report) => stepMs(report, decode));
    const ratios = values.map((value, round) => value / stepMs(reports[0]![round]!, decode));
    const change = `${(100 * median(ratios) - 100).toFixed(1)} %`;
    return [
      median(values).toFixed(2),
      `${quantile(values, 0.25).toFixed(2)} .. ${quantile(values, 0.75).toFixed(2)}`,
      change,
    ];
  });
  const waiting = reports[choice]!.map(({ phases }) => {
    const times = phases.flatMap(({ prefill, decode }) => [prefill, decode]);
    const whole = times.reduce((sum, time) => sum + sumOfPhases(time), 0);
    return times.reduce((sum, time) => sum + waitOfPhases(time), 0) / whole;
  });
  console.log(
    `| ${name} | ${cells.join(' | ')} | ${(100 * median(waiting)).toFixed(1)} % | ${reports[choice]![0]!.messages} |`,
  );
});
const outputs = new Set(reports.flat().map(({ outputSha256 }) => outputSha256));
console.log(`\noutputs: ${outputs.size === 1 ? 'the same tokens everywhere' : `${outputs.size} DIFFERENT`}`);
