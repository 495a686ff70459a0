import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { Kernels } from '../../src/kernels/kernels.ts';
import * as reference from '../../src/kernels/reference.ts';
import { Numbers, Workbench } from './workbench.ts';

const bench = new Workbench();

/** Words of rows that differ in how their exponents are spread; any bits at all, NaN and infinity too, among them. */
function words(kind: number, count: number, numbers: Numbers): Uint32Array {
  const any = (): number => numbers.integer(2 ** 16) * 2 ** 16 + numbers.integer(2 ** 16);
  if (kind === 0) return Uint32Array.from({ length: count }, any);
  if (kind === 1) return new Uint32Array(numbers.floats(count).buffer);
  if (kind === 2) return new Uint32Array(count).fill(any());
  // Exponents of a narrow band anywhere, the lowest and the highest too.
  const lowest = numbers.integer(256);
  const spread = 1 + numbers.integer(14);
  return Uint32Array.from({ length: count }, () => {
    const exponent = Math.min(255, lowest + numbers.integer(spread));
    return ((any() & 0x807fffff) | (exponent << 23)) >>> 0;
  });
}

function bytesAt(pointer: number, count: number): Uint8Array {
  return new Uint8Array(bench.memory.buffer, pointer, count).slice();
}

test('compact rows are those of the reference and come back bit for bit, in any order', () => {
  fc.assert(
    fc.property(
      fc.record({ rows: fc.nat(5), blocks: fc.integer({ min: 1, max: 20 }), kind: fc.nat(3), seed: fc.integer() }),
      ({ rows, blocks, kind, seed }) => {
        bench.clear();
        const numbers = new Numbers(seed);
        const width = blocks * 16;
        const source = words(kind, rows * width, numbers);
        const order = Int32Array.from({ length: rows }, (_, i) => rows - 1 - i);
        const from = bench.place(new Int32Array(source.buffer));
        const index = bench.place(order);
        const room = rows * Kernels.longestCompactRow(width) + 16;
        const compact = bench.reserve(Math.ceil(room / 4) * 4);
        const back = bench.reserve(rows * width * 4);
        for (const by of [undefined, index]) {
          const length = bench.kernels.compactRows(from, by, compact, rows, width);
          const expected = Array.from({ length: rows }, (_, i) => {
            const row = by === undefined ? i : order[i]!;
            return reference.compactRow(new Float32Array(source.buffer, row * width * 4, width));
          });
          assert.deepEqual(bytesAt(compact, length), Uint8Array.from(expected.flatMap((row) => [...row])));
          assert.ok(expected.every((row) => row.length <= Kernels.longestCompactRow(width)));
          assert.equal(bench.kernels.expandRows(compact, by, back, rows, width), length);
          assert.deepEqual(bytesAt(back, rows * width * 4), new Uint8Array(source.buffer));
        }
      },
    ),
  );
});

test('rows whose exponents lie within seven powers of two take 27 of 32 bits', () => {
  bench.clear();
  const row = Float32Array.from({ length: 256 }, (_, i) => (i % 2 === 0 ? 1 : -1) * 2 ** (i % 7) * (1 + i / 512));
  const compact = bench.reserve(2000);
  const length = bench.kernels.compactRows(bench.place(row), undefined, compact, 1, 256);
  assert.equal(length, 1 + (256 * 27) / 8);
});
