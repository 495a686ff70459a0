/**
 * Speed of one rank on one thread: `node dist/bench/engine-speed.js`. Everything is measured in one interleaved run:
 *
 * - prefill of a 256-token prompt, against the matrix kernels alone over the same shapes;
 * - decode, as bytes of touched weights per second, against streaming weights from memory (a region far larger than the
 *   caches) with 128-bit loads.
 *
 * Prints medians and quartiles over rounds, with the machine named.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SingleCommunicator } from '../src/comm/single.ts';
import { createRank } from '../src/engine/rank.ts';
import type { RankData, RankEvent, RankJob, RankReport } from '../src/engine/rank-protocol.ts';
import { Kernels, type PackedWeight } from '../src/kernels/kernels.ts';
import { openCheckpoint } from '../src/model/checkpoint.ts';
import type { ModelConfig } from '../src/model/config.ts';
import { fingerprint } from '../src/model/fingerprint.ts';
import { loadTokenizer } from '../src/model/tokenizer.ts';
import { contiguousPlan } from '../src/plan/contiguous-plan.ts';
import { machine, median, quantile } from './machine.ts';

const rounds = 15;
const promptTokens = 256;
const decodedTokens = 256;
const directory = process.argv[2] ?? fileURLToPath(new URL('../../models/demo', import.meta.url));

/** One matrix product of a step: rows x inputs -> outputs, `times` over. */
interface Product {
  rows: number;
  inputs: number;
  outputs: number;
  times: number;
}

/** The products of a prefill of `tokens`, expert rows spread evenly. */
function products(config: ModelConfig, tokens: number): Product[] {
  const { layers, hiddenSize, heads, keyValueHeads, headDimension, experts, topK, expertWidth, vocabularySize } =
    config;
  const used = Math.min(experts, tokens * topK);
  const rows = (tokens * topK) / used;
  return [
    { rows: tokens, inputs: hiddenSize, outputs: heads * headDimension, times: layers },
    { rows: tokens, inputs: hiddenSize, outputs: keyValueHeads * headDimension, times: 2 * layers },
    { rows: tokens, inputs: headDimension, outputs: hiddenSize, times: heads * layers },
    { rows: tokens, inputs: hiddenSize, outputs: experts, times: layers },
    { rows, inputs: hiddenSize, outputs: 2 * expertWidth, times: used * layers },
    { rows, inputs: expertWidth, outputs: hiddenSize, times: used * layers },
    { rows: 1, inputs: hiddenSize, outputs: vocabularySize, times: 1 },
  ];
}

/** Bytes of bf16 weights one decoded token reads: all of attention and router, k experts a layer, the output matrix. */
function touchedBytes(config: ModelConfig): number {
  return products(config, 1).reduce((sum, { inputs, outputs, times }) => sum + 2 * inputs * outputs * times, 0);
}

class KernelBench {
  readonly #kernels: Kernels;
  readonly #products: { product: Product; weights: PackedWeight[]; x: number; y: number }[];
  readonly #stream: { pointer: number; bytes: number };

  constructor(list: Product[]) {
    const streamBytes = 256 << 20;
    let next = Kernels.reservedBytes;
    const reserve = (bytes: number): number => {
      const pointer = next;
      next += Math.ceil(bytes / 64) * 64;
      return pointer;
    };
    this.#products = list.map((product) => ({
      product,
      // As many weights as the step really reads, so that caches see what they see in the engine.
      weights: Array.from({ length: product.times }, () => ({
        pointer: reserve(Kernels.packedBytes(product.outputs, product.inputs, 'bf16')),
        outputs: product.outputs,
        inputs: product.inputs,
        type: 'bf16' as const,
      })),
      x: reserve(product.rows * product.inputs * 4),
      y: reserve(product.rows * product.outputs * 4),
    }));
    this.#stream = { pointer: reserve(streamBytes), bytes: streamBytes };
    const pages = Math.ceil(next / 65536) + 1;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    this.#kernels = new Kernels(memory);
    // bf16 1.0 or f32 about 1: never denormal.
    new Uint16Array(memory.buffer, Kernels.reservedBytes, (next - Kernels.reservedBytes) >> 1).fill(0x3f80);
  }

  /** Milliseconds of the matrix products alone. */
  products(): number {
    const start = performance.now();
    for (const { product, weights, x, y } of this.#products) {
      for (const weight of weights) {
        this.#kernels.matmul(x, product.inputs, product.rows, weight, y, product.outputs);
      }
    }
    return performance.now() - start;
  }

  /** GB/s of reading memory that is in no cache. */
  streamRate(): number {
    const start = performance.now();
    this.#kernels.streamSum(this.#stream.pointer, this.#stream.bytes);
    return this.#stream.bytes / (performance.now() - start) / 1e6;
  }
}

function openRank(): { rank: (job: RankJob) => RankReport; config: ModelConfig } {
  const checkpoint = openCheckpoint(directory);
  const { config } = checkpoint;
  const plan = contiguousPlan({ config, fingerprint: fingerprint(checkpoint) }, 1);
  checkpoint.close();
  const data: RankData = {
    modelDirectory: directory,
    layout: { dataParallel: 1, tensorParallel: 1 },
    plans: [{ plan }],
    stepTokens: promptTokens,
    cachePositions: 2 * (promptTokens + decodedTokens),
  };
  const emit = (_event: RankEvent): void => {};
  return { config, rank: createRank({ communicator: new SingleCommunicator(), rank: 0, size: 1, data, emit }) };
}

function prompt(): Int32Array {
  const lines = readFileSync(join(directory, 'heldout/evaluation.jsonl'), 'utf8').trim().split('\n');
  const text = lines.slice(0, 8).map((line) => (JSON.parse(line) as { text: string }).text);
  return loadTokenizer(directory).encode(text.join('\n')).slice(0, promptTokens);
}

const { rank, config } = openRank();
const list = products(config, promptTokens);
const kernels = new KernelBench(list);
const tokens = prompt();
const job: RankJob = {
  plan: 0,
  schedule: 'dedup',
  predictor: 'token',
  requests: [
    {
      tokens,
      maxNewTokens: decodedTokens + 1,
      sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
      stopStrings: [],
      ignoreEnd: true,
      label: '',
    },
  ],
  placement: Int32Array.of(0),
  firstRecordRow: Int32Array.of(0),
  recordRouting: false,
  overlap: [],
  compactRows: false,
  oneShotTokens: 0,
  logits: 'none',
  streaming: false,
  timelineSteps: 0,
};

const flop = list.reduce((sum, { rows, inputs, outputs, times }) => sum + 2 * rows * inputs * outputs * times, 0);
const samples = {
  prefillMs: [],
  productsMs: [],
  decodeMs: [],
  streamRate: [],
  prefillShare: [],
  decodeShare: [],
} as Record<string, number[]>;
for (let round = -3; round < rounds; round++) {
  const productsMs = kernels.products();
  const [first, ...rest] = rank(job).outputs[0]!.tokenMs;
  const streamRate = kernels.streamRate();
  if (round < 0) continue;
  const decodeMs = (rest.at(-1)! - first!) / rest.length;
  samples.prefillMs!.push(first!);
  samples.productsMs!.push(productsMs);
  samples.decodeMs!.push(decodeMs);
  samples.streamRate!.push(streamRate);
  samples.prefillShare!.push((100 * productsMs) / first!);
  samples.decodeShare!.push((100 * touchedBytes(config)) / 1e6 / decodeMs / streamRate);
}

const row = (name: string, values: number[], unit: string, digits: number): string => {
  const [middle, low, high] = [median(values), quantile(values, 0.25), quantile(values, 0.75)];
  return `| ${name} | ${middle.toFixed(digits)} ${unit} | ${low.toFixed(digits)} .. ${high.toFixed(digits)} |`;
};
const rate = samples.productsMs!.map((ms) => flop / ms / 1e6);
console.log(`${machine()}; one rank, one thread, ${rounds} interleaved rounds\n`);
console.log('| what | median | quartiles |\n|---|---:|---:|');
console.log(row(`prefill, ${promptTokens} tokens`, samples.prefillMs!, 'ms', 1));
console.log(row('its matrix products alone', samples.productsMs!, 'ms', 1));
console.log(row('rate of these products', rate, 'GFLOP/s', 1));
console.log(row('prefill at this share of the kernels’ rate', samples.prefillShare!, '%', 0));
console.log(
  row(
    `decode, ${promptTokens} to ${promptTokens + decodedTokens} tokens of context`,
    samples.decodeMs!,
    'ms per token',
    2,
  ),
);
console.log(row('touched weights', [touchedBytes(config) / 1e6], 'MB per token', 1));
console.log(row('streaming from memory', samples.streamRate!, 'GB/s', 1));
console.log(row('decode at this share of the streaming rate', samples.decodeShare!, '%', 0));
