import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkLink, LinkModel, wireBytes, wireLink, type LinkSettings } from '../../src/comm/link-model.ts';
import { launchRanks } from '../../src/comm/rank-group.ts';
import { SmoeError } from '../../src/errors.ts';

/** 1 MB/s: a message of n bytes on the wire takes n microseconds. */
const slow: LinkSettings = { bytesPerSecond: 1e6, latencyMs: 2, ranksPerNode: 2 };
const milliseconds = (payload: number): number => wireBytes(payload) / 1000;

function models(settings: LinkSettings, ranks: number): { models: LinkModel[]; clock: { now: number } } {
  const clock = { now: 100 };
  const wiring = wireLink(settings, ranks);
  return { clock, models: Array.from({ length: ranks }, (_, rank) => new LinkModel(wiring, rank, () => clock.now)) };
}

const close = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-5, `${actual} is not ${expected}`);

describe('link model', () => {
  it('counts the headers of messages and frames', () => {
    assert.equal(wireBytes(0), 32 + 66);
    assert.equal(wireBytes(1448 - 32), 1448 + 66);
    assert.equal(wireBytes(1448 - 31), 1449 + 2 * 66);
  });

  it('knows who is across the link', () => {
    const [first] = models(slow, 4).models;
    assert.deepEqual(
      [0, 1, 2, 3].map((rank) => first!.isOutside(rank)),
      [false, false, true, true],
    );
  });

  it('serialises what a node sends, whichever rank sends it, and delays it', () => {
    const { models: ranks, clock } = models(slow, 4);
    close(ranks[0]!.send(1000), 102);
    close(ranks[1]!.send(500), 102 + milliseconds(1000));
    close(ranks[2]!.send(500), 102);
    clock.now = 200;
    close(ranks[0]!.send(0), 202);
  });

  it('serialises what a node receives in the order it is looked at', () => {
    const [first, second] = models(slow, 4).models;
    close(first!.receive(102, 1000), 102 + milliseconds(1000));
    close(second!.receive(102.5, 1000), 102 + 2 * milliseconds(1000));
    close(first!.receive(300, 1000), 300 + milliseconds(1000));
  });

  it('takes no time but the latency without a rate', () => {
    const [first] = models({ ...slow, bytesPerSecond: null }, 4).models;
    close(first!.send(1e9), 102);
    close(first!.send(1e9), 102);
    close(first!.receive(102, 1e9), 102);
  });

  it('refuses links that cannot be', () => {
    for (const wrong of [
      { bytesPerSecond: 0 },
      { bytesPerSecond: Number.NaN },
      { latencyMs: -1 },
      { ranksPerNode: 0 },
      { ranksPerNode: 1.5 },
    ]) {
      assert.throws(
        () => checkLink({ ...slow, ...wrong }),
        (error) => error instanceof SmoeError && error.code === 'COMM_LINK',
      );
    }
  });
});

describe('ranks over an emulated link', () => {
  it('never wait less than the link takes', async () => {
    const entry = new URL('./link-rank.js', import.meta.url);
    // 10 MB/s and 5 ms: 100 KB to each of three peers take 30 ms and the latency.
    const link = { bytesPerSecond: 1e7, latencyMs: 5, ranksPerNode: 1 };
    const group = await launchRanks<undefined, number>({ size: 4, entry, link });
    try {
      for (const elapsed of await group.run(undefined)) assert.ok(elapsed >= 35, `${elapsed} ms`);
    } finally {
      await group.close();
    }
  });
});
