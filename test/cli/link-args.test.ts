import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Flags } from '../../src/cli/flags.ts';
import { describeLink, readLink } from '../../src/cli/link-args.ts';
import { SmoeError } from '../../src/errors.ts';

describe('--link', () => {
  it('is a rate and a latency', () => {
    const link = readLink(new Flags({ link: '100mbit, 0.5ms', 'ranks-per-node': '2' }), 'threads', 4);
    assert.deepEqual(link, { bytesPerSecond: 12_500_000, latencyMs: 0.5, ranksPerNode: 2 });
    assert.equal(describeLink(link), 'emulated links between nodes of 2 ranks (100 Mbit/s, 500 us one way)');
    assert.deepEqual(readLink(new Flags({ link: 'none,2ms' }), 'threads', 4), {
      ...{ bytesPerSecond: null, latencyMs: 2, ranksPerNode: 1 },
    });
    assert.equal(readLink(new Flags({ link: '1gbit' }), 'threads', 4)?.latencyMs, 0);
    assert.equal(readLink(new Flags({}), 'mpi', 4), undefined);
  });

  it('is refused, by its name, when it cannot be', () => {
    const cases = [
      ['fast,1ms', undefined, 'threads', /--link: "fast" is not a rate/],
      ['1gbit,soon', undefined, 'threads', /--link: "soon" is not a latency/],
      ['1gbit,1ms,1ms', undefined, 'threads', /is not RATE,LATENCY/],
      ['1gbit', '4', 'threads', /leaves no link between 4 ranks/],
      [undefined, '2', 'threads', /there is no link/],
      ['1gbit', undefined, 'mpi', /no meaning with --transport mpi/],
    ] as const;
    for (const [link, perNode, transport, message] of cases) {
      const values = {
        ...(link === undefined ? {} : { link }),
        ...(perNode === undefined ? {} : { 'ranks-per-node': perNode }),
      };
      assert.throws(
        () => readLink(new Flags(values), transport, 4),
        (error) => error instanceof SmoeError && error.exitStatus === 2 && message.test(error.message),
      );
    }
  });
});
