import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CoreSharing } from '../../src/simulate/core-sharing.ts';
import { simulate } from '../../src/simulate/simulate.ts';
import { smallCluster, smallSimulation, smallTrace } from './small.ts';

const close = (actual: ArrayLike<number>, expected: number[]): void =>
  expected.forEach((value, i) => assert.ok(Math.abs(actual[i]! - value) < 1e-12, `${[...Array.from(actual)]}`));

test('ranks that share cores take turns until enough of them are done', () => {
  const sharing = new CoreSharing(smallCluster({ sharedCores: 2 }), 4);
  close(sharing.finish(Float64Array.of(1, 1, 1, 1)), [2, 2, 2, 2]);
  // Four at half speed until the first is done at 2; three at 2/3 until 3.5; then two at full speed.
  close(sharing.finish(Float64Array.of(4, 1, 2, 3)), [5.5, 2, 3.5, 4.5]);
  close(sharing.finish(Float64Array.of(3, 0, 0, 0)), [3, 0, 0, 0]);
});

test('cores shared inside a node are of no concern to other nodes', () => {
  const nodes = [{ devices: 2, sharedCores: 1 }, { devices: 2 }];
  const sharing = new CoreSharing(smallCluster({ nodes }), 4);
  close(sharing.finish(Float64Array.of(1, 2, 3, 4)), [2, 3, 3, 4]);
  // Fewer ranks than devices leave the last devices idle.
  close(new CoreSharing(smallCluster({ nodes }), 1).finish(Float64Array.of(5)), [5]);
});

test('shared cores: never faster than alone, work is conserved, more cores never slower', () => {
  const seconds = fc.array(fc.double({ min: 0, max: 10, noNaN: true }), { minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(seconds, (alone) => {
      const work = Float64Array.from(alone);
      const total = alone.reduce((sum, own) => sum + own, 0);
      let before = Number.POSITIVE_INFINITY;
      for (const sharedCores of [1, 2, 3, 4]) {
        const done = new CoreSharing(smallCluster({ sharedCores }), 4).finish(work);
        const last = Math.max(...done);
        done.forEach((own, rank) => assert.ok(own >= alone[rank]! - 1e-9));
        assert.ok(last * sharedCores >= total - 1e-9 && last <= total + 1e-9 && last <= before + 1e-9);
        before = last;
      }
      assert.ok(Math.abs(before - Math.max(...alone)) < 1e-9);
    }),
  );
});

test('a replay on shared cores computes longer and sends the same', () => {
  const clusters = [smallCluster(), smallCluster({ sharedCores: 2 }), smallCluster({ sharedCores: 4 })];
  const [own, shared, enough] = simulate(smallSimulation({ trace: smallTrace(4, 20), clusters }));
  assert.ok(shared!.computeMs > 1.5 * own!.computeMs && shared!.computeMs < 2.5 * own!.computeMs);
  assert.deepEqual(shared!.bytes, own!.bytes);
  assert.equal(shared!.communicationMs, own!.communicationMs);
  assert.deepEqual(shared!.busiestRank, own!.busiestRank);
  assert.equal(enough!.totalMs, own!.totalMs);
});
