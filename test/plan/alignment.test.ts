import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { alignDevices } from '../../src/plan/alignment.ts';
import { bestAssignment } from '../../src/plan/assignment.ts';
import { contiguousOwners } from '../../src/plan/solvers/contiguous.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

function permutations(size: number): number[][] {
  if (size === 0) return [[]];
  return permutations(size - 1).flatMap((rest) =>
    Array.from({ length: size }, (_, at) => rest.toSpliced(at, 0, size - 1)),
  );
}

describe('assignment', () => {
  it('equals the best of all permutations', () => {
    const square = fc.integer({ min: 1, max: 5 }).chain((size) =>
      fc.record({
        size: fc.constant(size),
        score: fc.array(fc.integer({ min: -20, max: 20 }), { minLength: size * size, maxLength: size * size }),
      }),
    );
    fc.assert(
      fc.property(square, ({ size, score }) => {
        const chosen = bestAssignment(Float64Array.from(score), size);
        assert.deepEqual(
          [...chosen].sort((a, b) => a - b),
          Array.from({ length: size }, (_, i) => i),
        );
        const value = (columns: ArrayLike<number>): number =>
          Array.from(columns).reduce((sum, column, row) => sum + score[row * size + column]!, 0);
        assert.equal(value(chosen), Math.max(...permutations(size).map(value)));
      }),
    );
  });
});

describe('device alignment', () => {
  it('undoes a renaming of one layer that has the same routing as the others', () => {
    const trace = syntheticTrace({
      layers: 3,
      experts: 16,
      topK: 4,
      vocabularySize: 60,
      requests: 8,
      tokensPerRequest: 40,
      seed: 2,
      structure: 3,
    });
    // The same experts in every layer, so that perfect agreement exists.
    for (let row = 0; row < trace.length; row++) {
      const first = trace.experts.subarray(row * 12, row * 12 + 4);
      trace.experts.set(first, row * 12 + 4);
      trace.experts.set(first, row * 12 + 8);
    }
    const contiguous = contiguousOwners(16, 4);
    const expertOwner = new Uint16Array([
      ...contiguous,
      ...contiguous.map((d) => [2, 0, 3, 1][d]!),
      ...contiguous.map((d) => 3 - d),
    ]);
    alignDevices(trace, expertOwner, 4);
    assert.deepEqual(expertOwner.subarray(16, 32), expertOwner.subarray(0, 16));
    assert.deepEqual(expertOwner.subarray(32, 48), expertOwner.subarray(0, 16));
  });
});
