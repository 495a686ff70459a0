import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DelayQueue } from '../../src/testbed/delay-queue.ts';
import { LatenessHistogram } from '../../src/testbed/lateness.ts';

const largestFrame = 40;

describe('delay queue', () => {
  it('gives back every frame it took, whole and in order', () => {
    const operations = fc.array(
      fc.oneof(fc.record({ push: fc.integer({ min: 1, max: largestFrame }) }), fc.constant('shift' as const)),
      { maxLength: 300 },
    );
    fc.assert(
      fc.property(
        operations,
        fc.integer({ min: 2, max: 20 }),
        fc.integer({ min: 2 * largestFrame, max: 400 }),
        (list, slots, bytes) => {
          const queue = new DelayQueue(bytes, slots, largestFrame);
          const expected: { length: number; due: number; fill: number }[] = [];
          for (const [due, operation] of list.entries()) {
            if (operation === 'shift') {
              if (expected.length === 0) continue;
              const { length, due: expectedDue, fill } = expected.shift()!;
              assert.equal(queue.due, expectedDue);
              assert.deepEqual(
                [...queue.ring.subarray(queue.offset, queue.offset + queue.length)],
                Array(length).fill(fill),
              );
              queue.shift();
            } else {
              const offset = queue.reserve();
              if (offset === -1) {
                assert.ok(expected.length > 0, 'an empty queue has room');
                continue;
              }
              // The whole reserved place is written, as a read of unknown length may.
              const fill = due % 251;
              queue.ring.fill(fill, offset, offset + largestFrame);
              queue.push(operation.push, due);
              expected.push({ length: operation.push, due, fill });
            }
            assert.equal(queue.empty, expected.length === 0);
            assert.equal(queue.due, expected[0]?.due ?? Number.POSITIVE_INFINITY);
          }
        },
      ),
    );
  });

  it('holds what its ring and slots allow', () => {
    const queue = new DelayQueue(4 * largestFrame, 100, largestFrame);
    let taken = 0;
    while (queue.reserve() !== -1) queue.push(largestFrame, taken++);
    assert.equal(taken, 4);
    queue.shift();
    queue.shift();
    assert.notEqual(queue.reserve(), -1);
    assert.throws(() => new DelayQueue(largestFrame, 10, largestFrame), RangeError);
  });
});

describe('lateness', () => {
  it('is summed up by quantiles, to a microsecond', () => {
    const histogram = new LatenessHistogram();
    assert.equal(histogram.summary(), null);
    for (let late = -50; late <= 50; late++) histogram.add(late);
    assert.deepEqual(histogram.summary(), { p1: -49, p50: 0, p99: 49, maximum: 50 });
    histogram.add(30_000);
    assert.equal(histogram.summary()!.maximum, 30_000);
  });
});
