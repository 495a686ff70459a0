/**
 * Routed (token, expert) pairs read per second from a Parquet trace, checks included:
 *
 *   node dist/bench/trace-reading.js TRACE.parquet [--pairs 50000000] [--repeats 5]
 *
 * The rows are those of TRACE, repeated until there are so many pairs: once in its own shape, and once as a model of 48 MoE layers, made
 * of the layers of different tokens side by side. Reading is one thread. CPU time of the process says what reading costs; wall time is
 * longer where the machine has other work.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readTrace, TraceWriter } from '../src/trace/parquet.ts';
import type { RoutingTrace } from '../src/trace/routing-trace.ts';
import { machine, median } from './machine.ts';

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { pairs: { type: 'string', default: '50000000' }, repeats: { type: 'string', default: '5' } },
});
if (positionals.length !== 1) {
  console.error('usage: trace-reading TRACE.parquet [--pairs N] [--repeats N]');
  process.exit(2);
}
const recorded = await readTrace(positionals[0]!);
const leastPairs = Number(flags.pairs);
const repeats = Number(flags.repeats);

/** Writes the rows over and over, every copy as further requests; a token's layers stand `beside` those of other tokens. */
function write(path: string, trace: RoutingTrace, beside: number): void {
  const { layers, topK } = trace.model;
  const width = layers * topK;
  const model = { ...trace.model, layers: layers * beside };
  const rowsAside = Math.floor(trace.length / beside);
  const experts = new Uint16Array(trace.length * width * beside);
  for (let row = 0; row < trace.length; row++) {
    for (let part = 0; part < beside; part++) {
      const from = (row + part * rowsAside) % trace.length;
      experts.set(trace.experts.subarray(from * width, (from + 1) * width), (row * beside + part) * width);
    }
  }
  const copies = Math.ceil(leastPairs / experts.length);
  const writer = new TraceWriter(path, model, false);
  const labels: string[] = [];
  for (let copy = 0; copy < copies; copy++) {
    const request = trace.request.map((own) => own + labels.length);
    writer.append({ ...trace, weights: undefined, request, experts });
    labels.push(...trace.labels);
  }
  writer.finish(trace.source, labels);
}

console.log(machine());
console.log(
  'trace'.padEnd(44) + ['MB', 'pairs', 'wall s', 'CPU s', 'M/s', 'M/CPU s'].map((s) => s.padStart(9)).join(''),
);
const directory = mkdtempSync(join(tmpdir(), 'smoe-trace-reading-'));
try {
  const path = join(directory, 'trace.parquet');
  for (const beside of new Set([1, Math.max(1, Math.round(48 / recorded.model.layers))])) {
    write(path, recorded, beside);
    const seconds: number[] = [];
    const cpuSeconds: number[] = [];
    let read = recorded;
    for (let i = 0; i < repeats; i++) {
      const cpuBefore = process.cpuUsage();
      const started = performance.now();
      read = await readTrace(path);
      seconds.push((performance.now() - started) / 1000);
      const { user, system } = process.cpuUsage(cpuBefore);
      cpuSeconds.push((user + system) / 1e6);
    }
    const { layers, topK, experts } = read.model;
    const pairs = read.experts.length;
    const figures = [statSync(path).size / 1e6, pairs, median(seconds), median(cpuSeconds)];
    const rates = [pairs / median(seconds) / 1e6, pairs / median(cpuSeconds) / 1e6];
    const cells = [
      ...figures.map((figure, i) => (i === 1 ? String(figure) : figure.toFixed(2))),
      ...rates.map((rate) => rate.toFixed(1)),
    ];
    const name = `${read.length} tokens, ${layers} x ${experts}, top ${topK}`;
    console.log(name.padEnd(44) + cells.map((cell) => cell.padStart(9)).join(''));
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
