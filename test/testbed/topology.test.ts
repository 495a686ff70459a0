import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  heterogeneous,
  homogeneous,
  nominalPath,
  parseLatency,
  parseRate,
  totalRanks,
  validateName,
} from '../../src/testbed/topology.ts';

describe('topology', () => {
  it('has equal hosts when homogeneous', () => {
    const { name, hosts } = homogeneous({ hosts: 3, rateMbit: 1000, latencyUs: 50 });
    assert.equal(name, 'default');
    assert.deepEqual(
      hosts,
      Array.from({ length: 3 }, () => ({ ranks: 1, rateMbit: 1000, latencyUs: 50 })),
    );
    assert.equal(totalRanks(homogeneous({ hosts: 3, ranksPerHost: 4 })), 12);
  });

  it('gives a path the slower rate and the delay of both ways', () => {
    const topology = heterogeneous({
      hosts: [{ ranks: 4, rateMbit: 1000, latencyUs: 50 }, { ranks: 2, rateMbit: 100, latencyUs: 200 }, { ranks: 1 }],
    });
    assert.equal(totalRanks(topology), 7);
    assert.deepEqual(nominalPath(topology, 0, 1), { rateMbit: 100, rttUs: 250 });
    assert.deepEqual(nominalPath(topology, 2, 0), { rateMbit: 1000, rttUs: 50 });
    assert.deepEqual(nominalPath(homogeneous({ hosts: 2 }), 0, 1), { rateMbit: null, rttUs: 0 });
  });

  it('refuses what cannot be built, as a usage error', () => {
    const refusals: [string, () => unknown][] = [
      ['TESTBED_HOSTS', () => homogeneous({ hosts: 1 })],
      ['TESTBED_HOSTS', () => homogeneous({ hosts: 65 })],
      ['TESTBED_HOSTS', () => homogeneous({ hosts: 2.5 })],
      ['TESTBED_HOSTS', () => heterogeneous({ hosts: [{ ranks: 4 }] })],
      ['TESTBED_RANKS', () => homogeneous({ hosts: 2, ranksPerHost: 0 })],
      ['TESTBED_RATE', () => homogeneous({ hosts: 2, rateMbit: 0 })],
      ['TESTBED_RATE', () => homogeneous({ hosts: 2, rateMbit: Number.NaN })],
      ['TESTBED_LATENCY', () => homogeneous({ hosts: 2, latencyUs: -1 })],
      ['TESTBED_LATENCY', () => homogeneous({ hosts: 2, latencyUs: 2e6 })],
      ...['', 'A', 'a b', '-a', 'a-', '../a', 'a'.repeat(21)].map((name): [string, () => unknown] => [
        'TESTBED_NAME',
        () => validateName(name),
      ]),
    ];
    for (const [code, build] of refusals) assert.throws(build, { code, exitStatus: 2 });
  });

  it('reads rates and latencies with their units', () => {
    assert.deepEqual(['100mbit', '2.5gbit', '1Gbit/s', 'none'].map(parseRate), [100, 2500, 1000, null]);
    assert.deepEqual(['0', '100us', '0.5ms', '1s'].map(parseLatency), [0, 100, 500, 1e6]);
    for (const text of ['', '100', '1tbit', '0mbit', '-1mbit', '101gbit', 'gbit']) {
      assert.throws(() => parseRate(text), { code: 'TESTBED_RATE' }, text);
    }
    for (const text of ['', '100', '-1us', '2s', 'us', '1 h']) {
      assert.throws(() => parseLatency(text), { code: 'TESTBED_LATENCY' }, text);
    }
  });
});
