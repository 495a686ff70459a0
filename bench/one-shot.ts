/**
 * Steps of few tokens, one-shot and not: `node dist/bench/one-shot.js` [--link RATE_MBIT,LATENCY_MS] [--batches 1,2,4,8]
 * [--new-tokens N] [--rounds N] [--mpirun-args ARGS]. Four ranks with attention tensor-parallel, as threads that share memory or have
 * emulated links, or on a testbed of four ranks (`smoe testbed run --rate 1gbit -- node dist/bench/one-shot.js`) as MPI processes on its
 * hosts. A batch is so many sequences of the shipped evaluation text that decode together; all setups take turns in every round, on the
 * same ranks. Median time of decode steps with quartiles, and medians of each round's ratio to `dedup` (docs/one-shot.md).
 */
import { parseArgs } from 'node:util';
import { demoDirectory } from '../src/cli/model-directory.ts';
import { relativeLatency } from '../src/cli/relative-latency.ts';
import type { RunOptions, RunReport, Session } from '../src/engine/api.ts';
import { openSessions } from '../src/engine/session.ts';
import { warmUp } from '../src/engine/warm-up.ts';
import { openCheckpoint } from '../src/model/checkpoint.ts';
import { fingerprint } from '../src/model/fingerprint.ts';
import { contiguousPlan } from '../src/plan/contiguous-plan.ts';
import { readPlan } from '../src/plan/plan-file.ts';
import { evaluationRequests } from './evaluation-requests.ts';
import { machine, median, quantile } from './machine.ts';
import { networkHere } from './network-here.ts';

const { values: options } = parseArgs({
  options: {
    link: { type: 'string' },
    batches: { type: 'string', default: '1,2,4,8,16' },
    'new-tokens': { type: 'string', default: '17' },
    rounds: { type: 'string', default: '10' },
    'mpirun-args': { type: 'string', default: '' },
  },
});

type Setup = Pick<RunOptions, 'schedule' | 'compactRows' | 'oneShotTokens'>;
const oneShot = { oneShotTokens: 128 };
const ordinary = { oneShotTokens: 0 };
const setups: (Setup & { name: string })[] = [
  { name: 'dedup', schedule: 'dedup', compactRows: false, ...ordinary },
  { name: 'dedup, one-shot', schedule: 'dedup', compactRows: false, ...oneShot },
  { name: 'speculative', schedule: 'speculative', compactRows: false, ...ordinary },
  { name: 'speculative, one-shot', schedule: 'speculative', compactRows: false, ...oneShot },
  { name: 'speculative, compact', schedule: 'speculative', compactRows: true, ...ordinary },
  { name: 'speculative, compact, one-shot', schedule: 'speculative', compactRows: true, ...oneShot },
];

const network = networkHere(options.link, options['mpirun-args']);
const checkpoint = openCheckpoint(demoDirectory);
const contiguous = contiguousPlan({ config: checkpoint.config, fingerprint: fingerprint(checkpoint) }, 4);
checkpoint.close();
const sessions = await openSessions(
  {
    ...{ modelDirectory: demoDirectory, layout: { dataParallel: 1, tensorParallel: 4 } },
    ...{ maximumStepTokens: 512, cachePositions: 16_384 },
    ...network.transport,
  },
  [{ plan: contiguous }, { plan: readPlan(`${demoDirectory}/plan-4.json`) }],
);
const sessionOf = ({ schedule }: Setup): Session => sessions[schedule === 'dedup' ? 0 : 1]!;

const newTokens = Number(options['new-tokens']);
const rounds = Number(options.rounds);
console.log(
  `${machine()}; 4 ranks (tp 4) over ${network.title}, prompts of 2 tokens, ${newTokens} new tokens, ${rounds} interleaved rounds\n`,
);
console.log('| sequences | setup | decode step ms | quartiles | against dedup | kB per token |');
console.log('|---:|---|---:|---|---:|---:|');
for (const batch of options.batches.split(',').map(Number)) {
  const requests = evaluationRequests(batch, 2, newTokens);
  const runOf = ({ name: _name, ...setup }: (typeof setups)[0]): Promise<RunReport> =>
    sessionOf(setup).run({ ...setup, predictor: 'combined', requests, logits: 'none', recordRouting: false });
  await warmUp(
    setups.map((setup) => () => runOf(setup)),
    3000,
  );
  const reports = setups.map((): RunReport[] => []);
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < setups.length; turn++) {
      const choice = (turn + round) % setups.length;
      reports[choice]!.push(await runOf(setups[choice]!));
    }
  }
  const times = reports.map((runs) => runs.map(decodeStepMs));
  setups.forEach(({ name }, choice) => {
    const own = times[choice]!;
    const { bytes, promptTokens, generatedTokens } = reports[choice]![0]!;
    const cells = [
      String(batch),
      name,
      median(own).toFixed(2),
      `${quantile(own, 0.25).toFixed(2)} .. ${quantile(own, 0.75).toFixed(2)}`,
      `${(100 * relativeLatency(own, times[0]!).median - 100).toFixed(1)} %`,
      (bytes.total / 1000 / (promptTokens + generatedTokens)).toFixed(1),
    ];
    console.log(`| ${cells.join(' | ')} |`);
  });
  const outputs = new Set(reports.flat().map(({ outputSha256 }) => outputSha256));
  if (outputs.size > 1) throw new Error(`${batch} sequences: ${outputs.size} different outputs`);
}
await Promise.all(sessions.map((session) => session.close()));

function decodeStepMs({ steps }: RunReport): number {
  return median(steps.filter(({ phase }) => phase === 'decode').map(({ milliseconds }) => milliseconds));
}
