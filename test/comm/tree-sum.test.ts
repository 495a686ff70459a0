import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { shardLength, shardStart } from '../../src/comm/shards.ts';
import { TreeSum } from '../../src/comm/tree-sum.ts';
import { testFloat, treeSum } from './reference.ts';

describe('tree sum', () => {
  it('has the bits of the level-by-level reference for every number of ranks', () => {
    for (let size = 1; size <= 64; size++) {
      const length = size % 7 === 0 ? 2500 : 33;
      const sources = Array.from({ length: size }, (_, rank) =>
        Float32Array.from({ length: length + rank }, (__, i) => testFloat(0, rank, i - rank)),
      );
      const offsets = sources.map((_, rank) => rank);
      const sums = new Float32Array(length + 1);
      new TreeSum(size).sum(sources, offsets, length, sums, 1);
      for (let i = 0; i < length; i++) {
        assert.ok(Object.is(sums[i + 1], treeSum(sources.map((_, rank) => testFloat(0, rank, i)))));
      }
    }
  });

  it('differs from adding in rank order, so that the test above means something', () => {
    const values = Array.from({ length: 1000 }, (_, i) => [0, 1, 2, 3].map((rank) => testFloat(0, rank, i)));
    const inOrder = (row: number[]): number => row.reduce((sum, value) => Math.fround(sum + value));
    assert.ok(values.some((row) => inOrder(row) !== treeSum(row)));
  });

  it('may write over one of its sources', () => {
    for (const size of [1, 2, 3, 4, 6, 8, 17]) {
      const sources = Array.from({ length: size }, (_, rank) =>
        Float32Array.from({ length: 1500 }, (__, i) => testFloat(1, rank, i)),
      );
      const own = sources[size - 1];
      new TreeSum(size).sum(
        sources,
        sources.map(() => 0),
        1500,
        own,
        0,
      );
      own.forEach((sum, i) => assert.equal(sum, treeSum(sources.map((_, rank) => testFloat(1, rank, i)))));
    }
  });
});

describe('shards', () => {
  it('cover the buffer in rank order, near-equal', () => {
    fc.assert(
      fc.property(fc.nat({ max: 10000 }), fc.integer({ min: 1, max: 64 }), (length, size) => {
        let start = 0;
        for (let rank = 0; rank < size; rank++) {
          assert.equal(shardStart(length, size, rank), start);
          start += shardLength(length, size, rank);
          assert.ok(Math.abs(shardLength(length, size, rank) - length / size) < 1);
        }
        assert.equal(start, length);
      }),
    );
  });
});
