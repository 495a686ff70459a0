import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clusterText } from '../../src/calibrate/cluster-text.ts';
import { decodeCluster } from '../../src/cluster/cluster-file.ts';
import { deviceCount } from '../../src/cluster/cluster.ts';

const calibration = {
  ...{ cores: 2, ranks: 4, transport: 'mpi' as const, predictSeconds: 3e-6, pieces: [] },
  rates: {
    ...{ flopsPerSecond: 31.26e9, attentionFlopsPerSecond: 9e9, expertFlopsPerSecond: 20e9 },
    ...{ memoryBytesPerSecond: 12e9, layerSeconds: 30e-6, tokenSeconds: 2e-6 },
  },
  exchange: { latencySeconds: 75e-6, bytesPerSecond: 0.5e9, samples: [] },
};

test('a calibration is a valid cluster: one machine whose ranks share its cores', () => {
  const cluster = decodeCluster(clusterText(calibration, { title: 'two\nlines', memoryGB: 6 }), 'x');
  assert.equal(deviceCount(cluster), 4);
  assert.equal(cluster.sharedCores, 2);
  const [{ device, inside }] = cluster.nodes as [(typeof cluster.nodes)[0]];
  assert.equal(device.flopsPerSecond, 31.3e9);
  assert.ok(Math.abs(device.predictSeconds - 3e-6) < 1e-12);
  assert.deepEqual(inside, { bytesPerSecond: 0.5e9, latencySeconds: 75e-6, messageSeconds: 0, measured: undefined });
});

test('as hosts: links as slow as given, never faster than the transport, latencies add up', () => {
  const of = (count: number, gigabitsPerSecond: number): ReturnType<typeof decodeCluster> =>
    decodeCluster(
      clusterText(calibration, { title: 't', memoryGB: 6, hosts: { count, gigabitsPerSecond, latencyUs: 25 } }),
      'x',
    );
  const slow = of(4, 1);
  assert.equal(slow.nodes.length, 4);
  assert.equal(slow.sharedCores, 2);
  assert.equal(slow.nodes[0]!.between.bytesPerSecond, 125e6);
  assert.ok(Math.abs(slow.nodes[0]!.between.latencySeconds - 100e-6) < 1e-12);
  const fast = of(2, 100);
  assert.deepEqual(
    fast.nodes.map(({ devices }) => devices),
    [2, 2],
  );
  assert.equal(fast.nodes[0]!.between.bytesPerSecond, 0.5e9);
  assert.equal(fast.nodes[0]!.inside.bytesPerSecond, 0.5e9);
});

test('hosts whose exchanges were measured have links like these', () => {
  const samples = [
    { bytes: 24, seconds: 3e-4, modelledSeconds: 0 },
    { bytes: 3072, seconds: 2e-4, modelledSeconds: 0 },
    { bytes: 196_608, seconds: 17e-3, modelledSeconds: 0 },
  ];
  const network = { count: 2, exchange: { latencySeconds: 2e-4, bytesPerSecond: 11e6, samples } };
  const text = clusterText({ ...calibration, network }, { title: 't', memoryGB: 6 });
  const { nodes } = decodeCluster(text, 'x');
  assert.deepEqual(
    nodes.map(({ devices }) => devices),
    [2, 2],
  );
  const { between, inside } = nodes[0]!;
  assert.ok(Math.abs(between.bytesPerSecond / 11e6 - 1) < 0.01);
  assert.ok(Math.abs(between.latencySeconds - 2e-4) < 1e-9);
  // What a larger exchange did not take, a smaller one does not either.
  assert.deepEqual(between.measured?.bytes, [24, 3072, 196_608]);
  assert.deepEqual(
    between.measured?.seconds.map((seconds) => Math.round(seconds * 1e6)),
    [200, 200, 17_000],
  );
  assert.equal(inside.bytesPerSecond, 0.5e9);
});
