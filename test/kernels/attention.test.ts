import { test } from 'node:test';

import fc from 'fast-check';

import { Kernels } from '../../src/kernels/kernels.ts';
import * as reference from '../../src/kernels/reference.ts';
import { assertSameBits, Numbers, Workbench } from './workbench.ts';

const bench = new Workbench();
const shape = fc.record({
  positions: fc.integer({ min: 1, max: 60 }),
  kvHeads: fc.integer({ min: 1, max: 3 }),
  group: fc.integer({ min: 1, max: 5 }),
  headDim: fc.constantFrom(16, 32, 48),
  window: fc.constantFrom(0, 0, 1, 7, 16, 33),
  chunks: fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 12 }),
  seed: fc.integer(),
});

test('attention gives the bits of the reference however the prompt is cut', () => {
  fc.assert(
    fc.property(shape, ({ positions, kvHeads, group, headDim, window, chunks, seed }) => {
      bench.clear();
      const numbers = new Numbers(seed);
      const heads = kvHeads * group;
      const [queryStride, keyStride, outputStride] = [heads * headDim + 2, kvHeads * headDim, heads * headDim + 1];
      const query = numbers.floats(positions * queryStride);
      const keys = numbers.floats(positions * keyStride);
      const values = numbers.floats(positions * keyStride);
      const scale = headDim ** -0.5;
      const expected = new Float32Array(positions * outputStride).fill(7);
      const output = bench.place(expected);
      reference.attention(
        query,
        queryStride,
        positions,
        0,
        heads,
        kvHeads,
        headDim,
        scale,
        window,
        keys,
        values,
        expected,
        outputStride,
      );

      // Pages in falling order with others between; what lies in them before is another sequence's.
      const pages = Math.ceil(positions / Kernels.pageSize);
      const table = Int32Array.from({ length: pages }, (_, i) => 2 * (pages - i) + 1);
      const poolPages = 1 + Math.max(...table);
      const pool = (): number =>
        bench.place(numbers.floats((poolPages * Kernels.keyValuePageBytes(kvHeads, headDim)) / 4, 1000));
      const [keyPool, valuePool] = [pool(), pool()];
      const pageTable = bench.place(table);
      const scratch = bench.reserve(Kernels.attentionScratchBytes(positions));
      const [queryAt, keyAt, valueAt] = [bench.place(query), bench.place(keys), bench.place(values)];
      let position = 0;
      for (const chunk of [...chunks, positions]) {
        const rows = Math.min(chunk, positions - position);
        const offset = position * keyStride * 4;
        bench.kernels.storeKeyValue(
          keyAt + offset,
          keyStride,
          valueAt + offset,
          keyStride,
          rows,
          position,
          pageTable,
          keyPool,
          valuePool,
          kvHeads,
          headDim,
        );
        bench.kernels.attention(
          queryAt + position * queryStride * 4,
          queryStride,
          rows,
          position,
          heads,
          kvHeads,
          headDim,
          scale,
          window,
          keyPool,
          valuePool,
          pageTable,
          output + position * outputStride * 4,
          outputStride,
          scratch,
        );
        position += rows;
      }
      assertSameBits(bench.floats(output, expected.length), expected, 'output');
    }),
    { numRuns: 150 },
  );
});
