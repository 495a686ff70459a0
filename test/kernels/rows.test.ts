import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import * as reference from '../../src/kernels/reference.ts';
import { assertSameBits, Numbers, Workbench } from './workbench.ts';

const bench = new Workbench();
const shape = fc.record({ rows: fc.nat(9), width: fc.integer({ min: 1, max: 40 }), seed: fc.integer() });

test('scatterRows undoes gatherRows of a permutation', () => {
  fc.assert(
    fc.property(shape, ({ rows, width, seed }) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const source = numbers.floats(rows * width);
      const order = Int32Array.from({ length: rows }, (_, i) => i);
      for (let i = rows - 1; i > 0; i--) {
        const j = numbers.integer(i + 1);
        [order[i], order[j]] = [order[j], order[i]];
      }
      const index = bench.place(order);
      const gathered = bench.reserve(source.byteLength);
      const back = bench.reserve(source.byteLength);
      bench.kernels.gatherRows(bench.place(source), index, gathered, rows, width);
      order.forEach((from, i) => {
        assertSameBits(
          bench.floats(gathered + i * width * 4, width),
          source.subarray(from * width, (from + 1) * width),
          `row ${i}`,
        );
      });
      bench.kernels.scatterRows(gathered, index, back, rows, width);
      assertSameBits(bench.floats(back, source.length), source, 'back');
    }),
  );
});

test('scatterAddRows and scatterAddWeighted add in ascending order, to repeated targets too', () => {
  fc.assert(
    fc.property(shape, fc.boolean(), ({ rows, width, seed }, weighted) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const source = numbers.floats(rows * width);
      const weights = numbers.floats(rows);
      const target = numbers.floats(4 * width + 4);
      const index = Int32Array.from({ length: rows }, () => numbers.integer(4));
      const sourceAt = bench.place(source);
      const at = bench.place(target);
      if (weighted)
        bench.kernels.scatterAddWeighted(sourceAt, bench.place(index), bench.place(weights), at, rows, width);
      else bench.kernels.scatterAddRows(sourceAt, bench.place(index), at, rows, width);
      reference.scatterAdd(source, index, weighted ? weights : undefined, target, rows, width);
      assertSameBits(bench.floats(at, target.length), target, 'target');
    }),
  );
});

test('addRows, addTo, copy and fillZero touch their elements only', () => {
  fc.assert(
    fc.property(fc.nat(40), fc.integer(), (count, seed) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const a = numbers.floats(count + 4);
      const b = numbers.floats(count + 4);
      const [aAt, bAt, sumAt] = [bench.place(a), bench.place(b), bench.place(a)];
      const sum = a.map((value, i) => (i < count ? value + b[i] : value));
      bench.kernels.addTo(aAt, bAt, sumAt, count);
      assertSameBits(bench.floats(sumAt, sum.length), sum, 'addTo');
      bench.kernels.addRows(aAt, bAt, count);
      assertSameBits(bench.floats(aAt, sum.length), sum, 'addRows');
      bench.kernels.copy(bAt, aAt, count * 4);
      assertSameBits(
        bench.floats(aAt, a.length),
        b.map((value, i) => (i < count ? value : a[i])),
        'copy',
      );
      bench.kernels.fillZero(bAt, count * 4);
      assertSameBits(
        bench.floats(bAt, b.length),
        b.map((value, i) => (i < count ? 0 : value)),
        'fillZero',
      );
    }),
  );
});

test('argmaxRow takes the lowest of equal maxima', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 1, maxLength: 40 }), (values) => {
      bench.clear();
      assert.equal(
        bench.kernels.argmaxRow(bench.place(Float32Array.from(values)), values.length),
        values.indexOf(Math.max(...values)),
      );
    }),
  );
  assert.equal(bench.kernels.argmaxRow(bench.place(Float32Array.of(NaN, -1, NaN, 3)), 4), 3);
  assert.equal(bench.kernels.argmaxRow(bench.place(Float32Array.of(NaN, NaN)), 2), -1);
});

test('streamSum adds every word', () => {
  bench.clear();
  const words = Int32Array.from({ length: 96 }, (_, i) => (i * 0x9e3779b9) | 0);
  assert.equal(
    bench.kernels.streamSum(bench.place(words), words.byteLength),
    words.reduce((a, b) => (a + b) | 0, 0),
  );
});

test('routerTopK gives the bits of the reference, ascending ids, ties to the lower', () => {
  const router = fc.record({
    rows: fc.nat(5),
    experts: fc.integer({ min: 1, max: 70 }),
    k: fc.integer({ min: 1, max: 9 }),
    normalize: fc.boolean(),
    ties: fc.boolean(),
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(router, ({ rows, experts, k: wanted, normalize, ties, seed }) => {
      bench.clear();
      const k = Math.min(wanted, experts);
      const numbers = new Numbers(seed);
      const logits = ties
        ? Float32Array.from({ length: rows * experts }, () => numbers.integer(4))
        : numbers.floats(rows * experts, 4);
      const ids = new Int32Array(rows * k);
      const weights = new Float32Array(rows * k);
      reference.routerTopK(logits, experts, rows, experts, k, normalize, ids, weights);
      const idsAt = bench.reserve(ids.byteLength);
      const weightsAt = bench.reserve(weights.byteLength);
      bench.kernels.routerTopK(bench.place(logits), experts, rows, experts, k, normalize, idsAt, weightsAt);
      assert.deepEqual([...bench.integers(idsAt, ids.length)], [...ids]);
      assertSameBits(bench.floats(weightsAt, weights.length), weights, 'weights');
    }),
  );
});

test('gatherAt and rmsNormAt read rows wherever they are', () => {
  fc.assert(
    fc.property(shape, ({ rows, width, seed }) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const source = numbers.floats((rows + 3) * width);
      const at = bench.place(source);
      const index = Int32Array.from({ length: rows }, () => numbers.integer(rows + 3));
      const addresses = bench.place(index.map((row) => at + row * width * 4));
      const weight = bench.place(numbers.floats(width));
      const wanted = bench.reserve(rows * width * 4);
      const got = bench.reserve(rows * width * 4);
      bench.kernels.gatherRows(at, bench.place(index), wanted, rows, width);
      bench.kernels.gatherAt(addresses, got, rows, width);
      assertSameBits(bench.floats(got, rows * width), bench.floats(wanted, rows * width), 'rows');
      bench.kernels.rmsNormAt(addresses, weight, got, rows, width, 1e-6);
      bench.kernels.rmsNorm(wanted, width, weight, wanted, width, rows, width, 1e-6);
      assertSameBits(bench.floats(got, rows * width), bench.floats(wanted, rows * width), 'norms');
    }),
  );
});
