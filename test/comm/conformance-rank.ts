/** The rank side of the conformance suite: one function per scenario, run on every rank at the same time. */
import assert from 'node:assert/strict';
import type { Communicator, Purpose } from '../../src/comm/communicator.ts';
import type { RankContext, RankJob } from '../../src/comm/rank-protocol.ts';
import { SmoeError } from '../../src/errors.ts';
import { Arena } from './arena.ts';
import { runProgram, seededProgram, type Program } from './program.ts';

const purpose: Purpose = 'dispatch';

interface Rank {
  context: RankContext<unknown, string>;
  communicator: Communicator;
  arena: Arena;
  program: Program | undefined;
}

export interface ConformanceJob {
  /** Name of one of the scenarios below. */
  scenario: string;
  program?: Program;
}

export function createRank(context: RankContext<unknown, string>): RankJob<ConformanceJob, unknown> {
  if (context.data === 'fail at start' && context.rank === context.size - 1) {
    throw new SmoeError('TEST_START', 'no start today');
  }
  const arena = new Arena(40 * 2 ** 20);
  context.communicator.attachMemory(arena.memory);
  return ({ scenario, program }) => {
    arena.reset();
    return scenarios[scenario]({ context, communicator: context.communicator, arena, program });
  };
}

type Scenario = (rank: Rank) => unknown;

/** Code of the error a call throws. */
function codeOf(call: () => void): string {
  try {
    call();
  } catch (error) {
    return error instanceof SmoeError ? error.code : String(error);
  }
  return 'none';
}

/** Does what blocks for ever unless somebody aborts. */
function waitForPeers({ communicator }: Rank): void {
  communicator.barrier();
}

/** Keeps the processor busy. */
function compute(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

const scenarios: Record<string, Scenario> = {
  /** What fast-check made up. */
  program: ({ communicator, arena, program }) => runProgram(communicator, arena, program!),

  /** Rows and columns of a grid, with requests of both and of the root in flight together; then nested splits. */
  grid: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const columns = size % 2 === 0 ? 2 : 1;
    const row = communicator.split(Math.floor(rank / columns), rank);
    const column = communicator.split(rank % columns, -rank);
    assert.equal(row.size, columns);
    assert.equal(row.rank, rank % columns);
    assert.equal(column.size, size / columns);
    assert.equal(column.rank, column.size - 1 - Math.floor(rank / columns));
    assert.equal(row.counters, communicator.counters);
    for (let round = 0; round < 10; round++) {
      arena.reset();
      const sums = [communicator, row, column].map((within) => {
        const small = arena.floats(3).fill(rank + 1);
        const large = arena.floats(5000).fill(rank + 1);
        return {
          small,
          large,
          requests: [small, large].map((buffer) => within.startAllReduce(buffer, purpose)),
        };
      });
      const requests = sums.flatMap((sum) => sum.requests);
      if (rank % 2 === 0) requests.reverse();
      for (const request of requests) request.wait();
      const ranks = Array.from({ length: size }, (_, other) => other);
      const groups = [
        ranks,
        ranks.filter((other) => Math.floor(other / columns) === Math.floor(rank / columns)),
        ranks.filter((other) => other % columns === rank % columns),
      ];
      for (const [index, { small, large }] of sums.entries()) {
        const expected = groups[index].reduce((sum, other) => sum + other + 1, 0);
        assert.ok(small.every((value) => value === expected) && large.every((value) => value === expected));
      }
      runProgram(column, arena, seededProgram(round + 100 * (rank % columns), column.size, 12));
      runProgram(row, arena, seededProgram(round + 100 * Math.floor(rank / columns), row.size, 12));
    }
    const nested = column.split(column.rank % 2, 0);
    runProgram(nested, arena, seededProgram(nested.size, nested.size, 20));
  },

  /** More requests than any transport keeps at a time, waited for last to first. */
  manyInFlight: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const started = Array.from({ length: 40 }, (_, index) => {
      const length = index % 3 === 0 ? 6000 : 2;
      const buffer = arena.bytes(length * size);
      const own = buffer.subarray(length * rank, length * (rank + 1)).fill(rank + index);
      const counts = new Int32Array(size).fill(length);
      return { buffer, length, request: communicator.startAllGather(own, buffer, counts, purpose) };
    });
    for (const { request } of started.toReversed()) request.wait();
    started.forEach(({ buffer, length }, index) => {
      buffer.forEach((byte, i) => assert.equal(byte, Math.floor(i / length) + index));
    });
  },

  /** Small collectives in quick succession, the ranks drifting apart. */
  manyInTurn: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const sum = arena.floats(2);
    const everyone = new Int32Array(size).fill(4);
    const gathered = arena.bytes(4 * size);
    for (let round = 0; round < 500; round++) {
      sum.fill(rank + round);
      communicator.allReduce(sum, purpose);
      assert.equal(sum[1], (size * (size - 1)) / 2 + size * round);
      if (round % 50 === rank) compute(1);
      communicator.allGather(gathered.subarray(4 * rank, 4 * rank + 4).fill(round), gathered, everyone, purpose);
      assert.ok(gathered.every((byte) => byte === (round & 255)));
      communicator.barrier();
    }
  },

  /** 8 MiB per rank through every collective. */
  large: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const total = 8 * 2 ** 20;
    const counts = Int32Array.from({ length: size }, (_, other) => (other === 0 ? total - 999 * (size - 1) : 999));
    const receive = arena.bytes(total);
    let start = 0;
    for (let other = 0; other < rank; other++) start += counts[other];
    communicator.allGather(receive.subarray(start, start + counts[rank]).fill(rank + 1), receive, counts, purpose);
    assert.equal(receive[0], 1);
    assert.equal(receive[total - 1], size);
    communicator.broadcast(receive, size - 1, purpose);
    arena.reset();
    const floats = arena.floats(total / 4).fill(rank + 1);
    communicator.allReduce(floats, purpose);
    assert.ok(floats.every((value) => value === (size * (size + 1)) / 2));
    arena.reset();
    const send = arena.bytes(total).fill(rank);
    const back = arena.bytes(total);
    const part = Math.floor(total / size);
    const parts = new Int32Array(size).fill(part);
    const starts = Int32Array.from({ length: size }, (_, other) => other * part);
    communicator.allToAll(send, parts, starts, back, parts, starts, purpose);
    for (let other = 0; other < size; other++) {
      assert.ok(back.subarray(other * part, (other + 1) * part).every((byte) => byte === other));
    }
  },

  arguments: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const none = new Int32Array(size);
    const bytes = arena.bytes(8);
    assert.equal(
      codeOf(() => communicator.broadcast(new Uint8Array(4), 0, purpose)),
      'COMM_BUFFER',
    );
    assert.equal(
      codeOf(() => communicator.broadcast(bytes, size, purpose)),
      'COMM_ROOT',
    );
    assert.equal(
      codeOf(() => communicator.allGather(bytes, arena.bytes(0), none, purpose)),
      'COMM_COUNTS',
    );
    assert.equal(
      codeOf(() => communicator.allGather(bytes, bytes, new Int32Array(size + 1), purpose)),
      'COMM_COUNTS',
    );
    const overrun = new Int32Array(size).fill(9);
    assert.equal(
      codeOf(() => communicator.allToAll(bytes, overrun, none, bytes, none, none, purpose)),
      'COMM_COUNTS',
    );
    assert.equal(
      codeOf(() =>
        communicator.allToAll(bytes, none, none, arena.bytes(8), none, none, purpose, new Int32Array(size + 1)),
      ),
      'COMM_COUNTS',
    );
    assert.equal(
      codeOf(() => communicator.allToAll(bytes, none, none, bytes, none, none, purpose)),
      'COMM_BUFFER',
    );
    const floats = arena.floats(size);
    assert.equal(
      codeOf(() => communicator.reduceScatter(floats, none, floats, purpose)),
      'COMM_COUNTS',
    );
    assert.equal(
      codeOf(() => communicator.attachMemory(arena.memory)),
      'COMM_MEMORY',
    );
    const negative = new Int32Array(size).fill(-1);
    assert.equal(
      codeOf(() => communicator.reduceScatter(floats, negative, floats, purpose)),
      'COMM_COUNTS',
    );
    // Nothing of the above has been started: the ranks still agree.
    communicator.barrier();
    return rank;
  },

  /** Two memories take turns: payloads lie in the one in use, here and at the peers. */
  memories: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const other = new Arena(2 ** 20);
    communicator.attachMemory(other.memory);
    const sub = communicator.split(rank >> 1, 0);
    const floats = [arena, other].map((own) => own.floats(20_000));
    for (const [turn, length] of [1, 9, 20_000, 20_000, 1].entries()) {
      for (const which of [0, 1, 1, 0]) {
        communicator.useMemory([arena, other][which].memory);
        for (const group of [communicator, sub]) {
          const buffer = floats[which].subarray(0, length).fill(which + turn + communicator.rank);
          group.allReduce(buffer, purpose);
          const members = group === communicator ? size : group.size;
          const first = group === communicator ? 0 : (rank >> 1) * 2;
          const sum = Array.from({ length: members }, (_, i) => which + turn + first + i).reduce((a, b) => a + b, 0);
          assert.ok(buffer.every((value) => value === sum));
        }
        assert.equal(
          codeOf(() => communicator.allReduce(floats[1 - which], purpose)),
          'COMM_BUFFER',
        );
      }
    }
    assert.equal(
      codeOf(() => communicator.useMemory(new Arena(65536).memory)),
      'COMM_MEMORY',
    );
    if (size > 1 && sub.size < size) {
      assert.equal(
        codeOf(() => sub.useMemory(arena.memory)),
        'COMM_MEMORY',
      );
    }
    communicator.useMemory(arena.memory);
    // Rank 0 joins in only when the others have seen that they may not change over.
    const seen = communicator.split(0, 0);
    if (rank === 0) seen.barrier();
    const request = communicator.startAllReduce(floats[0], purpose);
    if (rank === 0) return request.wait();
    assert.equal(
      codeOf(() => communicator.useMemory(other.memory)),
      'COMM_MEMORY',
    );
    seen.barrier();
    request.wait();
  },

  /** Events come before the report and in order. */
  events: ({ context }) => {
    for (let i = 0; i < 3; i++) context.emit(`${context.rank}:${i}`);
    return context.rank;
  },

  waitMs: ({ communicator }) => {
    if (communicator.rank === 0) compute(40);
    const before = communicator.counters.waitMs;
    communicator.barrier();
    return communicator.counters.waitMs - before;
  },

  abort: (rank) => {
    if (rank.communicator.rank === 0) {
      compute(50);
      rank.communicator.abort();
    }
    waitForPeers(rank);
  },

  /** The waiters sit in sub-communicators that the aborting rank is no part of. */
  abortFromElsewhere: (rank) => {
    const { communicator } = rank;
    const sub = communicator.split(communicator.rank === 0 ? 0 : 1, 0);
    if (communicator.rank === 0) {
      compute(50);
      communicator.abort();
    } else if (sub.rank > 0 || sub.size === 1) waitForPeers(rank);
    else waitForPeers({ ...rank, communicator: sub });
  },

  throwing: (rank) => {
    if (rank.communicator.rank === 1) {
      compute(20);
      throw new SmoeError('TEST_THROWN', 'thrown on purpose', { hint: 'none', exitStatus: 3 });
    }
    waitForPeers(rank);
  },

  dying: (rank) => {
    if (rank.communicator.rank === 1) process.exit(7);
    waitForPeers(rank);
  },

  /** Runs out of heap. */
  exhausting: ({ communicator }) => {
    const hoard: string[][] = [];
    while (communicator.rank === 1) hoard.push(Array.from({ length: 1e5 }, (_, i) => `${hoard.length} ${i}`));
    communicator.barrier();
  },

  unclonable: () => () => undefined,

  spinning: () => {
    for (;;);
  },

  waitingForEver: ({ communicator }) => {
    if (communicator.rank === 0) for (;;);
    communicator.barrier();
  },

  leavingEarly: (rank) => {
    if (rank.communicator.rank !== 0) waitForPeers(rank);
  },

  otherOperation: ({ communicator, arena }) => {
    if (communicator.rank === 1) communicator.allReduce(arena.floats(4), purpose);
    else communicator.barrier();
  },

  otherLength: ({ communicator, arena }) => {
    communicator.allReduce(arena.floats(communicator.rank === 1 ? 5000 : 5001), purpose);
  },

  otherRoot: ({ communicator, arena }) => {
    communicator.broadcast(arena.bytes(8), communicator.rank === 1 ? 1 : 0, purpose);
  },

  otherCounts: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const sendCounts = new Int32Array(size).fill(8);
    const receiveCounts = new Int32Array(size).fill(8);
    if (rank === 1) receiveCounts[0] = 12;
    const starts = Int32Array.from({ length: size }, (_, other) => other * 16);
    const send = arena.bytes(size * 16);
    communicator.allToAll(send, sendCounts, starts, arena.bytes(size * 16), receiveCounts, starts, purpose);
  },

  /** A segment beyond its receiver's limit. */
  otherLimit: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const sendCounts = new Int32Array(size).fill(rank === 0 ? 5000 : 8);
    const limits = new Int32Array(size).fill(5000);
    if (rank === 1) limits[0] = 4999;
    const starts = Int32Array.from({ length: size }, (_, other) => other * 5000);
    const send = arena.bytes(size * 5000);
    const received = new Int32Array(size);
    communicator.allToAll(send, sendCounts, starts, arena.bytes(size * 5000), limits, starts, purpose, received);
  },

  /** One rank knows what it gets, the others only limits. */
  otherKnowledge: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const counts = new Int32Array(size).fill(8);
    const starts = Int32Array.from({ length: size }, (_, other) => other * 8);
    const received = rank === 1 ? undefined : new Int32Array(size);
    communicator.allToAll(
      arena.bytes(size * 8),
      counts,
      starts,
      arena.bytes(size * 8),
      counts,
      starts,
      purpose,
      received,
    );
  },

  otherShards: ({ communicator, arena }) => {
    const { rank, size } = communicator;
    const counts = new Int32Array(size).fill(4);
    if (rank === 1) {
      counts[0]++;
      counts[1]--;
    }
    communicator.reduceScatter(arena.floats(4 * size), counts, arena.floats(5), purpose);
  },
};
