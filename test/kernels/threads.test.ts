/** Kernel calls shared between threads. */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { createTeamArea, KernelTeam } from '../../src/kernels/kernel-team.ts';
import { rangeOf } from '../../src/kernels/kernel-parts.ts';
import { Kernels, type WeightType } from '../../src/kernels/kernels.ts';
import { ThreadedKernels } from '../../src/kernels/threaded-kernels.ts';
import { assertSameBits, Numbers, toBfloat16, Workbench } from './workbench.ts';

describe('kernel team', () => {
  it('gives every part to one thread, and some to helpers', async () => {
    const area = createTeamArea();
    const marks = new SharedArrayBuffer(4 * 1001);
    const taken = new Int32Array(marks);
    const entry = new URL(import.meta.resolve('./kernel-team-helper.js'));
    const helpers = [2, 3].map((helper) => new Worker(entry, { workerData: { area, marks, helper } }));
    const team = new KernelTeam(area);
    for (let call = 0; call < 100; call++) {
      const at = 1 + 10 * call;
      // The caller's first part lasts until a helper has had one, in the first calls.
      const before = Atomics.load(taken, 0);
      team.call(1, [at], 10, (_, [first], part) => {
        Atomics.add(taken, first! + part, 1);
        if (call >= 10) return;
        while (Atomics.load(taken, 0) === before) Atomics.wait(taken, 0, before, 10);
      });
      for (const mark of taken.subarray(at, at + 10)) assert.ok(mark >= 1 && mark <= 3, `${mark}`);
    }
    assert.ok(taken[0]! >= 10);
    assert.throws(() => {
      for (;;) team.call(9, [], 4, () => Atomics.wait(taken, 0, taken[0]!, 5));
    }, /failed on a helper/);
    await Promise.all(helpers.map((helper) => helper.terminate()));
  });

  it('cuts every unit into one part', () => {
    const shape = fc.tuple(fc.integer({ min: 1, max: 20 }), fc.nat(500), fc.integer({ min: 1, max: 4 }));
    fc.assert(
      fc.property(shape, ([parts, count, step]) => {
        let next = 0;
        for (let part = 0; part < parts; part++) {
          const { from, to } = rangeOf(part, parts, count, step);
          assert.equal(from, next);
          assert.ok(to >= from && from % step === 0);
          next = to;
        }
        assert.equal(next, count);
      }),
    );
  });
});

describe('threaded kernels', () => {
  const bench = new Workbench();
  const threaded = [2, 3, 5].map((threads) => new ThreadedKernels(bench.memory, threads));
  after(() => Promise.all(threaded.map((kernels) => kernels.close())));
  const chosen = fc.constantFrom(...threaded);

  it('multiply to the bits of one thread, and write nothing else', () => {
    const shape = fc.record({
      kernels: chosen,
      rows: fc.constantFrom(1, 2, 7, 32, 61),
      outputs: fc.integer({ min: 100, max: 900 }),
      inputs: fc.constantFrom(48, 256, 320),
      gap: fc.nat(3),
      type: fc.constantFrom<WeightType>('bf16', 'f32'),
      cut: fc.nat(5),
      seed: fc.integer(),
    });
    fc.assert(
      fc.property(shape, ({ kernels, rows, outputs, inputs, gap, type, cut, seed }) => {
        bench.clear();
        const numbers = new Numbers(seed);
        const x = bench.place(numbers.floats(rows * inputs));
        const values = numbers.floats(outputs * inputs);
        const weight = bench.pack(type === 'bf16' ? toBfloat16(values) : values, outputs, inputs, type);
        const blank = new Float32Array(rows * (outputs + gap) + 16).fill(12345);
        const [expected, actual] = [bench.place(blank), bench.place(blank)];
        bench.kernels.matmul(x, inputs, rows, weight, expected, outputs + gap, cut);
        kernels.matmul(x, inputs, rows, weight, actual, outputs + gap, cut);
        assertSameBits(bench.floats(actual, blank.length), bench.floats(expected, blank.length), 'y');
      }),
      { numRuns: 100, seed: 7 },
    );
  });

  it('attend to the bits of one thread', () => {
    const shape = fc.record({
      kernels: chosen,
      rows: fc.integer({ min: 1, max: 70 }),
      before: fc.integer({ min: 0, max: 90 }),
      group: fc.constantFrom(1, 2, 4),
      window: fc.constantFrom(0, 24),
      seed: fc.integer(),
    });
    const [kvHeads, headDim] = [2, 32];
    fc.assert(
      fc.property(shape, ({ kernels, rows, before, group, window, seed }) => {
        bench.clear();
        const numbers = new Numbers(seed);
        const heads = kvHeads * group;
        const positions = before + rows;
        const pages = Math.ceil(positions / Kernels.pageSize);
        const poolFloats = (pages * Kernels.keyValuePageBytes(kvHeads, headDim)) / 4;
        const query = bench.place(numbers.floats(rows * heads * headDim));
        const [keys, values] = [bench.place(numbers.floats(poolFloats)), bench.place(numbers.floats(poolFloats))];
        const table = bench.place(Int32Array.from({ length: pages }, (_, page) => pages - 1 - page));
        const scratch = bench.reserve(ThreadedKernels.attentionScratches(5) * Kernels.attentionScratchBytes(positions));
        const stride = heads * headDim;
        const outputs = [bench.kernels, kernels].map((each) => {
          const output = bench.place(new Float32Array(rows * stride));
          const [scale, pools] = [Math.fround(1 / Math.sqrt(headDim)), [keys, values, table] as const];
          each.attention(
            ...([query, stride, rows, before, heads, kvHeads, headDim, scale, window] as const),
            ...pools,
            ...([output, stride, scratch] as const),
          );
          return bench.floats(output, rows * stride);
        });
        assertSameBits(outputs[1]!, outputs[0]!, 'output');
      }),
      { numRuns: 100, seed: 7 },
    );
  });
});
