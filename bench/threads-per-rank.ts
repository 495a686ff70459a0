/**
 * What more threads give one rank: `node dist/bench/threads-per-rank.js [threads ...]` (2 when not given, against 1).
 *
 * The same prompt is run in turns by ranks of 1, then so many threads, in one process: prefill of 256 tokens, decoding of one
 * sequence and of 16 at once. Prints medians and quartiles over rounds with the machine named, and checks that all give the
 * same tokens.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SingleCommunicator } from '../src/comm/single.ts';
import { contiguousPlan } from '../src/plan/contiguous-plan.ts';
import type { GenerationRequest } from '../src/engine/api.ts';
import { createRank } from '../src/engine/rank.ts';
import type { RankData, RankJob, RankReport } from '../src/engine/rank-protocol.ts';
import { openCheckpoint } from '../src/model/checkpoint.ts';
import { fingerprint } from '../src/model/fingerprint.ts';
import { loadTokenizer } from '../src/model/tokenizer.ts';
import { machine, median, quantile } from './machine.ts';

const rounds = 11;
const promptTokens = 256;
const decodedTokens = 32;
const sequences = 16;
const directory = fileURLToPath(new URL('../../models/demo', import.meta.url));
const threadCounts = [1, ...(process.argv.length > 2 ? process.argv.slice(2).map(Number) : [2])];

function openRank(threads: number): (job: RankJob) => RankReport {
  const checkpoint = openCheckpoint(directory);
  const { config } = checkpoint;
  const plan = contiguousPlan({ config, fingerprint: fingerprint(checkpoint) }, 1);
  checkpoint.close();
  const data: RankData = {
    modelDirectory: directory,
    layout: { dataParallel: 1, tensorParallel: 1 },
    plans: [{ plan }],
    stepTokens: promptTokens,
    cachePositions: (sequences + 2) * (promptTokens + decodedTokens),
    threads,
  };
  return createRank({ communicator: new SingleCommunicator(), rank: 0, size: 1, data, emit: () => undefined });
}

function jobOf(requests: GenerationRequest[]): RankJob {
  return {
    ...{
      schedule: 'dedup',
      predictor: 'token',
      requests,
      recordRouting: false,
      overlap: [],
      compactRows: false,
      oneShotTokens: 0,
      logits: 'none',
    },
    placement: new Int32Array(requests.length),
    firstRecordRow: new Int32Array(requests.length),
    streaming: false,
    timelineSteps: 0,
    plan: 0,
  };
}

const lines = readFileSync(join(directory, 'heldout/evaluation.jsonl'), 'utf8').trim().split('\n');
const tokenizer = loadTokenizer(directory);
const texts = lines.slice(0, sequences).map((line) => (JSON.parse(line) as { text: string }).text);
const request = (tokens: Int32Array): GenerationRequest => ({
  tokens,
  maxNewTokens: decodedTokens + 1,
  sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
  stopStrings: [],
  ignoreEnd: true,
  label: '',
});
const single = jobOf([request(tokenizer.encode(texts.join('\n')).slice(0, promptTokens))]);
const batch = jobOf(texts.map((text) => request(tokenizer.encode(text).slice(0, 15))));

const ranks = threadCounts.map((threads) => ({
  threads,
  rank: openRank(threads),
  prefill: [] as number[],
  decode: [] as number[],
  batched: [] as number[],
}));
/** Milliseconds of a step that decodes, over the run. */
const stepMs = ({ outputs: [output] }: RankReport): number => {
  const times = output!.tokenMs;
  return (times.at(-1)! - times[0]!) / (times.length - 1);
};
let expected: string | undefined;
for (let round = -2; round < rounds; round++) {
  for (let turn = 0; turn < ranks.length; turn++) {
    const { rank, prefill, decode, batched } = ranks[(Math.max(round, 0) + turn) % ranks.length]!;
    const one = rank(single);
    const many = rank(batch);
    const tokens = JSON.stringify([...one.outputs, ...many.outputs].map((output) => output.tokens));
    assert.equal(tokens, (expected ??= tokens));
    if (round < 0) continue;
    prefill.push(one.outputs[0]!.tokenMs[0]!);
    decode.push(stepMs(one));
    batched.push(stepMs(many));
  }
}

console.log(`${machine()}; one rank of the shipped model, ${rounds} interleaved rounds\n`);
console.log('| what | threads | median | quartiles | against 1 thread |\n|---|---:|---:|---:|---:|');
const kinds = [
  ['prefill', `prefill, ${promptTokens} tokens`],
  ['decode', 'decode step, 1 sequence'],
  ['batched', `decode step, ${sequences} sequences`],
] as const;
for (const [kind, name] of kinds) {
  for (const measured of ranks) {
    const [middle, low, high] = [0.5, 0.25, 0.75].map((share) => quantile(measured[kind], share));
    const gain = (median(ranks[0]![kind]) / middle!).toFixed(2);
    console.log(
      `| ${name} | ${measured.threads} | ${middle!.toFixed(2)} ms | ${low!.toFixed(2)} .. ${high!.toFixed(2)} | ${gain}x |`,
    );
  }
}
