import { test } from 'node:test';

import fc from 'fast-check';

import { Kernels, type WeightType } from '../../src/kernels/kernels.ts';
import * as reference from '../../src/kernels/reference.ts';
import { assertSameBits, Numbers, toBfloat16, upperHalves, Workbench } from './workbench.ts';

const bench = new Workbench();
const weightType = fc.constantFrom<WeightType>('bf16', 'f32');
const untouched = 12345;

function randomWeight(numbers: Numbers, count: number, type: WeightType): Float32Array {
  const values = numbers.floats(count);
  return type === 'bf16' ? toBfloat16(values) : values;
}

test('matmul gives the bits of the reference and writes nothing else', () => {
  const shape = fc.record({
    rows: fc.nat(19),
    outputs: fc.integer({ min: 1, max: 70 }),
    inputs: fc.nat(40),
    gap: fc.nat(3),
    type: weightType,
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(shape, ({ rows, outputs, inputs, gap, type, seed }) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const x = numbers.floats(rows * (inputs + gap));
      const w = randomWeight(numbers, outputs * inputs, type);
      const expected = new Float32Array(rows * (outputs + gap) + 32).fill(untouched);
      const y = bench.place(expected);
      bench.kernels.matmul(bench.place(x), inputs + gap, rows, bench.pack(w, outputs, inputs, type), y, outputs + gap);
      reference.matmul(x, inputs + gap, rows, w, outputs, inputs, expected, outputs + gap);
      assertSameBits(bench.floats(y, expected.length), expected, 'y');
    }),
    { numRuns: 300 },
  );
});

test('matmul of any cut into panels and rows gives the same bits', () => {
  const shape = fc.record({
    rows: fc.integer({ min: 1, max: 9 }),
    outputs: fc.integer({ min: 1, max: 90 }),
    type: weightType,
    rowCut: fc.nat(9),
    cut: fc.nat(6),
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(shape, ({ rows, outputs, type, rowCut, cut, seed }) => {
      bench.clear();
      const inputs = 33;
      const numbers = new Numbers(seed);
      const x = bench.place(numbers.floats(rows * inputs));
      const weight = bench.pack(randomWeight(numbers, outputs * inputs, type), outputs, inputs, type);
      const whole = bench.place(new Float32Array(rows * outputs));
      bench.kernels.matmul(x, inputs, rows, weight, whole, outputs);
      const parts = bench.place(new Float32Array(rows * outputs));
      const panelCut = Math.min(cut, Kernels.panels(outputs));
      const firstRows = Math.min(rowCut, rows);
      for (const [start, count] of [
        [0, firstRows],
        [firstRows, rows - firstRows],
      ]) {
        const from = x + start * inputs * 4;
        const to = parts + start * outputs * 4;
        bench.kernels.matmul(from, inputs, count, weight, to, outputs, 0, panelCut);
        bench.kernels.matmul(from, inputs, count, weight, to, outputs, panelCut);
      }
      assertSameBits(bench.floats(parts, rows * outputs), bench.floats(whole, rows * outputs), 'parts');
    }),
  );
});

test('packWeight cuts columns out, unpackRow and embedRows give rows back', () => {
  const shape = fc.record({
    outputs: fc.integer({ min: 1, max: 40 }),
    inputs: fc.integer({ min: 1, max: 20 }),
    before: fc.nat(5),
    after: fc.nat(5),
    type: weightType,
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(shape, ({ outputs, inputs, before, after, type, seed }) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const stride = before + inputs + after;
      const source = randomWeight(numbers, outputs * stride, type);
      const row = (n: number): Float32Array => source.subarray(n * stride + before, n * stride + before + inputs);
      const weight = { pointer: bench.reserve(Kernels.packedBytes(outputs, inputs, type)), outputs, inputs, type };
      bench.kernels.packWeight(bench.place(type === 'bf16' ? upperHalves(source) : source), stride, before, weight);

      const ids = Int32Array.from({ length: 7 }, () => numbers.integer(outputs));
      const target = bench.reserve(ids.length * inputs * 4);
      bench.kernels.embedRows(weight, bench.place(ids), ids.length, target);
      ids.forEach((id, i) => assertSameBits(bench.floats(target + i * inputs * 4, inputs), row(id), `row ${id}`));
      bench.kernels.unpackRow(weight, ids[0], target);
      assertSameBits(bench.floats(target, inputs), row(ids[0]), 'unpackRow');
    }),
  );
});
