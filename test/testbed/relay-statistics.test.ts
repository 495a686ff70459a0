import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  decodeStatistics,
  encodeStatistics,
  statisticsBytes,
  type RelayStatistics,
} from '../../src/testbed/relay-statistics.ts';

describe('statistics of the relay', () => {
  it('come out of the file as they went in', () => {
    const quiet: RelayStatistics = { frames: 3, bytes: 300, dropped: 1, latenessUs: null };
    const busy: RelayStatistics = { ...quiet, latenessUs: { p1: -20, p50: 0, p99: 40, maximum: 700 } };
    for (const statistics of [quiet, busy]) {
      const file = new Uint8Array(statisticsBytes);
      encodeStatistics(statistics, new Float64Array(file.buffer));
      // A Buffer of a file is a part of a larger piece of memory.
      assert.deepEqual(decodeStatistics(Buffer.from(file)), statistics);
    }
    assert.equal(decodeStatistics(new Uint8Array(0)), undefined);
  });
});
