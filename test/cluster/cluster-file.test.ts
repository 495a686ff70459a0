import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { deviceCount, nodeOfDevices, withLink } from '../../src/cluster/cluster.ts';
import { decodeCluster, loadCluster, readCluster } from '../../src/cluster/cluster-file.ts';
import { assertEnoughDevices, assertMemoryHolds } from '../../src/cluster/limits.ts';
import { clusterPresets } from '../../src/cluster/presets.ts';
import { SmoeError } from '../../src/errors.ts';

const good = {
  device: { gigaflops: 100, memoryGBps: 20, memoryGB: 2 },
  inside: { gigabitsPerSecond: 80, latencyUs: 1 },
  between: { gigabitsPerSecond: 1, latencyUs: 50, messageUs: 2, sharedBy: 'node' },
  nodes: [
    { name: 'left', devices: 2 },
    { count: 2, devices: 1, device: { gigaflops: 50, memoryGBps: 10, memoryGB: 1 } },
  ],
};

function errorOf(action: () => unknown): SmoeError {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof SmoeError, String(error));
    return error;
  }
  return assert.fail('nothing was thrown');
}

test('a cluster file: units, defaults, repeated and overriding nodes; YAML and JSON are the same', () => {
  const cluster = decodeCluster(JSON.stringify(good), 'lab.json');
  assert.equal(cluster.name, 'lab.json');
  assert.deepEqual(
    cluster.nodes.map(({ name, devices }) => [name, devices]),
    [
      ['left', 2],
      ['node 1', 1],
      ['node 2', 1],
    ],
  );
  assert.deepEqual(cluster.nodes[0]!.between, {
    bytesPerSecond: 125e6,
    latencySeconds: 50e-6,
    messageSeconds: 2e-6,
    measured: undefined,
  });
  assert.equal(cluster.nodes[0]!.device.flopsPerSecond, 100e9);
  assert.equal(cluster.nodes[2]!.device.memoryBytes, 1e9);
  assert.equal(deviceCount(cluster), 4);
  assert.deepEqual([...nodeOfDevices(cluster)], [0, 0, 1, 2]);
  const yaml = `
device: { gigaflops: 100, memoryGBps: 20, memoryGB: 2 }
inside: { gigabitsPerSecond: 80, latencyUs: 1 }
between: # one card per host
  gigabitsPerSecond: 1
  latencyUs: 50
  messageUs: 2
  sharedBy: node
nodes:
  - { name: left, devices: 2 }
  - { count: 2, devices: 1, device: { gigaflops: 50, memoryGBps: 10, memoryGB: 1 } }
`;
  assert.deepEqual(decodeCluster(yaml, 'lab.json'), cluster);
});

test('presets are valid and of the sizes they name', () => {
  const sizes = Object.keys(clusterPresets).map((name) => [
    name,
    loadCluster(name).nodes.length,
    deviceCount(loadCluster(name)),
  ]);
  assert.deepEqual(sizes, [
    ['nvlink-8', 1, 8],
    ['infiniband-2x8', 2, 16],
    ['ethernet-1g-4', 4, 4],
    ['ethernet-10g-4', 4, 4],
  ]);
});

const bad: [string, unknown, RegExp][] = [
  [
    'negative bandwidth',
    { ...good, between: { gigabitsPerSecond: -1 } },
    /between\.gigabitsPerSecond: -1 must be above 0/,
  ],
  ['negative latency', { ...good, inside: { gigabitsPerSecond: 1, latencyUs: -3 } }, /inside\.latencyUs: -3 must not/],
  ['no bandwidth', { ...good, inside: {} }, /inside\.gigabitsPerSecond/],
  [
    'a word for a number',
    { ...good, inside: { gigabitsPerSecond: 'fast' } },
    /inside\.gigabitsPerSecond: "fast" a number/,
  ],
  ['zero devices', { ...good, nodes: [{ devices: 0 }] }, /nodes\.0\.devices: 0 must be at least 1/],
  ['half a device', { ...good, nodes: [{ devices: 1.5 }] }, /nodes\.0\.devices/],
  ['no nodes', { ...good, nodes: [] }, /nodes: .*at least one/],
  ['nodes missing', { device: good.device }, /nodes/],
  ['an unknown field', { ...good, bandwith: 3 }, /bandwith: is not a field/],
  ['an unknown field of a link', { ...good, inside: { ...good.inside, gbps: 3 } }, /inside\.gbps: is not a field/],
  [
    'measured sizes that fall',
    {
      ...good,
      inside: {
        gigabitsPerSecond: 1,
        measured: [
          [9, 1],
          [8, 2],
        ],
      },
    },
    /inside\.measured: .*bytes must ascend/,
  ],
  [
    'measured times that fall',
    {
      ...good,
      inside: {
        gigabitsPerSecond: 1,
        measured: [
          [8, 2],
          [9, 1],
        ],
      },
    },
    /inside\.measured: .*must not fall/,
  ],
  [
    'no measured times',
    { ...good, inside: { gigabitsPerSecond: 1, measured: [] } },
    /inside\.measured: .*must not be empty/,
  ],
  ['half a measured time', { ...good, inside: { gigabitsPerSecond: 1, measured: [[8]] } }, /inside\.measured/],
  [
    'a measured time of nothing',
    { ...good, inside: { gigabitsPerSecond: 1, measured: [[8, 0]] } },
    /inside\.measured\.0\.1: 0 must be above 0/,
  ],
  ['no memory', { ...good, device: { gigaflops: 1, memoryGBps: 1, memoryGB: 0 } }, /device\.memoryGB: 0/],
  ['a bad sharer', { ...good, between: { gigabitsPerSecond: 1, sharedBy: 'rack' } }, /between\.sharedBy.*node, device/],
  ['no link inside', { device: good.device, between: good.between, nodes: [{ devices: 2 }] }, /nodes\.0\.inside/],
  ['no link between', { device: good.device, nodes: [{ devices: 1 }, { devices: 1 }] }, /nodes\.0\.between/],
  ['no device rates', { nodes: [{ devices: 1 }] }, /nodes\.0\.device/],
  [
    'two nodes of one name',
    {
      ...good,
      nodes: [
        { name: 'a', devices: 1 },
        { name: 'a', devices: 1 },
      ],
    },
    /two nodes/,
  ],
  ['too many devices', { ...good, nodes: [{ count: 4096, devices: 1024 }] }, /at most 4096/],
  ['not an object', 7, /file: 7 is no set of fields/],
  ['nothing', null, /file: is empty/],
  [
    'a misspelt field rather than the missing one',
    { ...good, inside: { gigabitPerSecond: 1 } },
    /inside\.gigabitPerSecond: is not a field/,
  ],
  ['shared cores of nothing', { ...good, sharedCores: 0 }, /sharedCores: 0 must be at least 1/],
  [
    'cores shared twice',
    { ...good, sharedCores: 2, nodes: [{ devices: 2, sharedCores: 1 }] },
    /nodes\.0\.sharedCores: the whole cluster already/,
  ],
  [
    'a negative expert rate',
    { ...good, device: { gigaflops: 1, memoryGBps: 1, memoryGB: 1, expertGigaflops: -1 } },
    /device\.expertGigaflops: -1 must be above 0/,
  ],
];
for (const [what, content, message] of bad) {
  test(`refused, naming the field: ${what}`, () => {
    const error = errorOf(() => decodeCluster(JSON.stringify(content), 'lab.yaml'));
    assert.equal(error.code, 'CLUSTER_INVALID');
    assert.match(error.message, /^lab\.yaml: /);
    assert.match(error.message, message);
    assert.ok(error.hint);
  });
}

test('refused: no such file, neither YAML nor JSON, truncated', () => {
  assert.equal(errorOf(() => loadCluster('nvlink-9')).code, 'CLUSTER_UNREADABLE');
  assert.match(errorOf(() => loadCluster('nvlink-9')).hint!, /nvlink-8/);
  assert.equal(errorOf(() => decodeCluster('nodes: [', 'x')).code, 'CLUSTER_SYNTAX');
  assert.equal(errorOf(() => decodeCluster('', 'x')).code, 'CLUSTER_INVALID');
  const folder = mkdtempSync(join(tmpdir(), 'cluster-'));
  try {
    writeFileSync(join(folder, 'c.json'), JSON.stringify(good).slice(0, -20));
    assert.equal(errorOf(() => readCluster(join(folder, 'c.json'))).code, 'CLUSTER_SYNTAX');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('refused: more ranks than devices, memory too small', () => {
  const cluster = decodeCluster(JSON.stringify(good), 'lab');
  assertEnoughDevices(cluster, 4);
  assert.equal(errorOf(() => assertEnoughDevices(cluster, 5)).code, 'CLUSTER_TOO_FEW_DEVICES');
  assertMemoryHolds(cluster, Float64Array.of(2e9, 2e9, 1e9, 1e9));
  const error = errorOf(() => assertMemoryHolds(cluster, Float64Array.of(1e9, 1e9, 1.5e9, 1e9)));
  assert.equal(error.code, 'CLUSTER_MEMORY');
  assert.equal(error.exitStatus, 3);
  assert.match(error.message, /device 2 \(node 1\): memoryGB: 1\.00 GB cannot hold the 1\.50 GB/);
});

test('any JSON value is a cluster or refused with a CLUSTER_ error', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom('device', 'inside', 'between', 'nodes', 'name'), (value, field) => {
      try {
        decodeCluster(JSON.stringify({ ...good, [field]: value }), 'x');
      } catch (error) {
        assert.ok(error instanceof SmoeError && error.code.startsWith('CLUSTER_'), String(error));
      }
    }),
    { numRuns: 300 },
  );
});

test('what a device does not say: one rate for all arithmetic, no bookkeeping, cores of its own', () => {
  const { nodes, sharedCores } = decodeCluster(JSON.stringify(good), 'lab');
  const { device } = nodes[0]!;
  assert.equal(device.attentionFlopsPerSecond, device.flopsPerSecond);
  assert.equal(device.expertFlopsPerSecond, device.flopsPerSecond);
  assert.deepEqual([device.tokenSeconds, device.predictSeconds], [0, 0]);
  assert.deepEqual([nodes[0]!.sharedCores, sharedCores], [undefined, undefined]);
});

test('a changed link is that between nodes, or the one inside a single node', () => {
  const change = { bytesPerSecond: 7 };
  const ethernet = withLink(loadCluster('ethernet-1g-4'), change);
  const between = { gigabitsPerSecond: 1, measured: [[8, 1]] };
  const measured = decodeCluster(JSON.stringify({ ...good, between }), 'lab');
  assert.deepEqual(measured.nodes[0]!.between.measured, { bytes: [8], seconds: [1e-6] });
  assert.equal(withLink(measured, change).nodes[0]!.between.measured, undefined);
  assert.ok(ethernet.nodes.every(({ between }) => between.bytesPerSecond === 7));
  const nvlink = withLink(loadCluster('nvlink-8'), change);
  assert.equal(nvlink.nodes[0]!.inside.bytesPerSecond, 7);
});
