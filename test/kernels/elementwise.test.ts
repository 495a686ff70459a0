import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import * as reference from '../../src/kernels/reference.ts';
import { assertSameBits, Numbers, Workbench } from './workbench.ts';

const bench = new Workbench();
const shape = fc.record({
  rows: fc.nat(6),
  width: fc.integer({ min: 1, max: 70 }),
  gap: fc.nat(3),
  seed: fc.integer(),
});

test('rmsNorm gives the bits of the reference, in place too', () => {
  fc.assert(
    fc.property(shape, ({ rows, width, gap, seed }) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const stride = width + gap;
      const x = numbers.floats(rows * stride);
      const weight = numbers.floats(width);
      const expected = x.slice();
      reference.rmsNorm(x, stride, weight, expected, stride, rows, width, 1e-6);
      const at = bench.place(x);
      bench.kernels.rmsNorm(at, stride, bench.place(weight), at, stride, rows, width, 1e-6);
      assertSameBits(bench.floats(at, x.length), expected, 'y');
    }),
  );
});

test('swiglu gives the bits of the reference', () => {
  fc.assert(
    fc.property(shape, ({ rows, width, gap, seed }) => {
      bench.clear();
      const gateUp = new Numbers(seed).floats(rows * (2 * width + gap), 10);
      const expected = new Float32Array(rows * (width + gap) + 4).fill(7);
      const y = bench.place(expected);
      reference.swiglu(gateUp, 2 * width + gap, expected, width + gap, rows, width);
      bench.kernels.swiglu(bench.place(gateUp), 2 * width + gap, y, width + gap, rows, width);
      assertSameBits(bench.floats(y, expected.length), expected, 'y');
    }),
  );
});

test('softmaxRows gives the bits of the reference, and rows that add up to 1', () => {
  fc.assert(
    fc.property(shape, ({ rows, width, gap, seed }) => {
      bench.clear();
      const stride = width + gap;
      const x = new Numbers(seed).floats(rows * stride, 20);
      const at = bench.place(x);
      bench.kernels.softmaxRows(at, stride, rows, width);
      reference.softmaxRows(x, stride, rows, width);
      assertSameBits(bench.floats(at, x.length), x, 'softmax');
      for (let row = 0; row < rows; row++) {
        const sum = x.subarray(row * stride, row * stride + width).reduce((a, b) => a + b, 0);
        assert.ok(Math.abs(sum - 1) < 1e-5, `row ${row} adds up to ${sum}`);
      }
    }),
  );
});

test('exponential gives the bits of the reference and stays within 1 ulp of e^x', () => {
  const count = 40000;
  const numbers = new Numbers(1);
  const x = Float32Array.from({ length: count }, (_, i) =>
    i % 4 === 0 ? (numbers.next() - 0.5) * 2 : numbers.next() * 200 - 108,
  );
  x.set([-Infinity, Infinity, NaN, 0, -0, -1e30, 1e30, 88.7, 88.8, -87.4, -103.9, -104.1, 1e-40]);
  bench.clear();
  const at = bench.place(x);
  bench.kernels.exponential(at, at, count - 1);
  const y = bench.floats(at, count);
  assertSameBits(y.subarray(0, count - 1), x.subarray(0, count - 1).map(reference.exponential), 'exponential');
  assert.equal(y[count - 1], x[count - 1]);
  assert.deepEqual([...y.subarray(0, 7)], [0, Infinity, NaN, 1, 1, 0, Infinity]);
  for (let i = 7; i < count - 1; i++) {
    const exact = Math.exp(x[i]);
    if (exact > 3.4028234663852886e38) continue;
    const ulp = 2 ** Math.max(Math.floor(Math.log2(exact)) - 23, -149);
    assert.ok(Math.abs(y[i] - exact) <= ulp, `e^${x[i]} is ${y[i]}, exactly ${exact}`);
  }
});

test('ropeTables agree with Math and applyRope with the reference', () => {
  const rope = fc.record({
    rows: fc.nat(6),
    heads: fc.integer({ min: 1, max: 3 }),
    half: fc.integer({ min: 1, max: 20 }),
    gap: fc.nat(3),
    seed: fc.integer(),
    theta: fc.constantFrom(1e4, 1e6),
  });
  fc.assert(
    fc.property(rope, ({ rows, heads, half, gap, seed, theta }) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const positions = 300;
      const cosines = new Float32Array(positions * half);
      const sines = new Float32Array(positions * half);
      reference.ropeTables(cosines, sines, positions, 2 * half, theta);
      const cosinesAt = bench.reserve(cosines.byteLength);
      const sinesAt = bench.reserve(sines.byteLength);
      bench.kernels.ropeTables(cosinesAt, sinesAt, positions, 2 * half, theta);
      assertSameBits(bench.floats(cosinesAt, cosines.length), cosines, 'cosines');
      assertSameBits(bench.floats(sinesAt, sines.length), sines, 'sines');

      const stride = heads * 2 * half + gap;
      const x = numbers.floats(rows * stride);
      const at = bench.place(x);
      const places = Int32Array.from({ length: rows }, () => numbers.integer(positions));
      bench.kernels.applyRope(at, stride, bench.place(places), rows, heads, 2 * half, cosinesAt, sinesAt);
      reference.applyRope(x, stride, places, rows, heads, 2 * half, cosines, sines);
      assertSameBits(bench.floats(at, x.length), x, 'x');
    }),
    { numRuns: 30 },
  );
});
