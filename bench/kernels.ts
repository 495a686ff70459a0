/**
 * Rates of the kernels on one thread: `node dist/bench/kernels.js`. Each figure is the best of several
 * repeats, after enough calls for V8 to have replaced its baseline code.
 */
import { cpus } from 'node:os';

import { Kernels, type WeightType } from '../src/kernels/kernels.ts';

const memory = new WebAssembly.Memory({ initial: 8192, maximum: 8192, shared: true });
const kernels = new Kernels(memory);
let next = Kernels.reservedBytes;

function reserve(bytes: number): number {
  const pointer = next;
  next += Math.ceil(bytes / 64) * 64;
  return pointer;
}

function fill(pointer: number, count: number, scale: number): void {
  const values = new Float32Array(memory.buffer, pointer, count);
  for (let i = 0; i < count; i++) values[i] = (((i * 7919) % 2003) / 1001 - 1) * scale;
}

/** Seconds of one call: the fastest of 7 runs of about `runMs` each. */
function seconds(call: () => void, runMs: number = 20): number {
  const warm = performance.now();
  let calls = 0;
  while (performance.now() - warm < 3 * runMs) {
    call();
    calls++;
  }
  const perRun = Math.max(1, Math.round(calls / 3));
  let best = Infinity;
  for (let run = 0; run < 7; run++) {
    const start = performance.now();
    for (let i = 0; i < perRun; i++) call();
    best = Math.min(best, (performance.now() - start) / perRun);
  }
  return best / 1000;
}

function report(what: string, figures: string[]): void {
  console.log(what.padEnd(30) + figures.map((figure) => figure.padStart(9)).join(''));
}

console.log(`${cpus()[0].model.trim()}, node ${process.version}, one thread\n`);

const rowCounts = [1, 2, 3, 4, 8, 16, 64, 256];
const x = reserve(256 * 256 * 4);
const y = reserve(256 * 16384 * 4);
fill(x, 256 * 256, 1);
report('matmul GFLOP/s, rows =', rowCounts.map(String));
for (const type of ['bf16', 'f32'] satisfies WeightType[]) {
  for (const [inputs, outputs] of [
    [256, 96],
    [48, 256],
    [256, 256],
    [32, 256],
    [256, 16384],
  ]) {
    const source = reserve(outputs * inputs * 4);
    fill(source, outputs * inputs, 1);
    if (type === 'bf16') {
      const halves = new Uint16Array(memory.buffer, source, outputs * inputs * 2);
      for (let i = 0; i < outputs * inputs; i++) halves[i] = halves[2 * i + 1];
    }
    const weight = { pointer: reserve(Kernels.packedBytes(outputs, inputs, type)), outputs, inputs, type };
    kernels.packWeight(source, inputs, 0, weight);
    const rates = rowCounts.map((rows) => {
      const time = seconds(() => kernels.matmul(x, inputs, rows, weight, y, outputs));
      return ((2 * rows * inputs * outputs) / time / 1e9).toFixed(1);
    });
    report(`  ${type} K=${inputs} N=${outputs}`, rates);
  }
}

console.log('\nelementwise, ns per element');
const count = 16384;
const perElement = (call: () => void): string[] => [((seconds(call) / count) * 1e9).toFixed(3)];
fill(x, count, 8);
report(
  '  exponential',
  perElement(() => kernels.exponential(x, y, count)),
);
report(
  '  swiglu, width 48',
  perElement(() => kernels.swiglu(x, 96, y, 48, Math.floor(count / 96), 48)),
);
report(
  '  rmsNorm, width 256',
  perElement(() => kernels.rmsNorm(x, 256, x, y, 256, count / 256, 256, 1e-6)),
);
report(
  '  routerTopK, 8 of 64',
  perElement(() => kernels.routerTopK(x, 64, count / 64, 64, 8, true, y, y + count)),
);
report(
  '  addTo',
  perElement(() => kernels.addTo(x, y, y, count)),
);

console.log('\nattention, 8 heads of 32 over 4, milliseconds');
const [heads, kvHeads, headDim] = [8, 4, 32];
const positions = 2048;
const width = heads * headDim;
const keyPool = reserve((positions / Kernels.pageSize) * Kernels.keyValuePageBytes(kvHeads, headDim));
const valuePool = reserve((positions / Kernels.pageSize) * Kernels.keyValuePageBytes(kvHeads, headDim));
const pageTable = reserve((positions / Kernels.pageSize) * 4);
new Int32Array(memory.buffer, pageTable, positions / Kernels.pageSize).forEach((_, i, table) => (table[i] = i));
const scratch = reserve(Kernels.attentionScratchBytes(positions));
const query = reserve(positions * width * 4);
fill(query, positions * width, 1);
kernels.storeKeyValue(query, width, query, width, positions, 0, pageTable, keyPool, valuePool, kvHeads, headDim);
for (const [rows, first] of [
  [1, 255],
  [1, 2047],
  [256, 0],
  [1024, 0],
]) {
  const call = (): void =>
    kernels.attention(
      query,
      width,
      rows,
      first,
      heads,
      kvHeads,
      headDim,
      0.18,
      0,
      keyPool,
      valuePool,
      pageTable,
      y,
      width,
      scratch,
    );
  const time = seconds(call);
  const scores = (rows * (2 * first + rows + 1)) / 2;
  report(`  ${rows} rows from position ${first}`, [
    (time * 1e3).toFixed(3),
    ` ${((4 * heads * headDim * scores) / time / 1e9).toFixed(1)} GFLOP/s`,
  ]);
}

console.log('\ncompact rows of normally distributed values, microseconds a row and GB/s of plain bytes');
for (const rowWidth of [256, 2048, 7168]) {
  const rows = 64;
  const rowBytes = rowWidth * 4;
  const plain = reserve(rows * rowBytes);
  const compact = reserve(rows * Kernels.longestCompactRow(rowWidth) + 16);
  const back = reserve(rows * rowBytes);
  // Sums of twelve uniform values.
  const values = new Float32Array(memory.buffer, plain, rows * rowWidth);
  let seed = 1;
  for (let i = 0; i < values.length; i++) {
    let sum = -6;
    for (let j = 0; j < 12; j++) sum += (seed = (seed * 48271) % 2147483647) / 2147483647;
    values[i] = sum;
  }
  const length = kernels.compactRows(plain, undefined, compact, rows, rowWidth);
  for (const [what, call] of [
    ['compact', () => kernels.compactRows(plain, undefined, compact, rows, rowWidth)],
    ['expand', () => kernels.expandRows(compact, undefined, back, rows, rowWidth)],
  ] satisfies [string, () => void][]) {
    const time = seconds(call) / rows;
    const figures = [(time * 1e6).toFixed(2), (rowBytes / time / 1e9).toFixed(1)];
    report(`  ${what}, width ${rowWidth}`, [...figures, ` ${((100 * length) / rows / rowBytes).toFixed(1)} %`]);
  }
}

console.log('\nstreaming, GB/s');
// Written first: untouched pages are all one page of zeros.
new Uint32Array(memory.buffer, Kernels.reservedBytes, 2 ** 26).fill(1);
for (const mebibytes of [0.25, 4, 256]) {
  const bytes = mebibytes * 2 ** 20;
  report(`  ${mebibytes} MiB`, [
    (bytes / seconds(() => kernels.streamSum(Kernels.reservedBytes, bytes)) / 1e9).toFixed(1),
  ]);
}
