/**
 * A random sequence of collectives as plain data, and its execution on one rank: every result, and what the traffic
 * counters must show, follows from the data alone.
 */
import assert from 'node:assert/strict';
import { purposes, type CommunicationRequest, type Communicator, type Purpose } from '../../src/comm/communicator.ts';
import type { Arena } from './arena.ts';
import { testByte, testFloat, treeSum } from './reference.ts';

export const collectives = [
  'barrier',
  'broadcast',
  'allGather',
  'allToAll',
  'reduceScatter',
  'allReduce',
  'allReduceMaximum',
] as const;

export interface Step {
  collective: (typeof collectives)[number];
  purpose: Purpose;
  blocking: boolean;
  /** All-gather from the rank's own part of the receive buffer; all-to-all whose receivers know limits only. */
  inPlace: boolean;
  /** Taken modulo the size. */
  root: number;
  /** [size][size] lengths, row = sender; collectives of one count per rank use the first row. */
  lengths: number[];
}

export interface Program {
  steps: Step[];
  /** Step i is waited for in ascending order of waitOrder[i]; negative ones are polled to the end instead. */
  waitOrder: number[];
}

interface Started {
  request: CommunicationRequest | undefined;
  check(): void;
}

/** Bytes and messages by purpose, as `TrafficCounters` without the time. */
interface Traffic {
  bytes: Record<Purpose, number>;
  messages: Record<Purpose, number>;
}

export function runProgram(communicator: Communicator, arena: Arena, program: Program): void {
  arena.reset();
  const before = snapshot(communicator);
  const expected = snapshot(communicator);
  const started = program.steps.map((step, index) => startStep(communicator, arena, step, index, expected));
  const order = program.steps.map((_, index) => index).sort((a, b) => program.waitOrder[a] - program.waitOrder[b]);
  for (const index of order) {
    const { request } = started[index];
    if (request === undefined) continue;
    // A few polls, then a wait: polling to the end would burn a core that a peer needs.
    for (let poll = 0; program.waitOrder[index] < 0 && poll < 3 && !request.test(); poll++);
    request.wait();
    assert.equal(request.test(), true);
  }
  for (const { check } of started) check();
  assert.deepEqual(snapshot(communicator), expected, `traffic since ${JSON.stringify(before)}`);
}

function snapshot({ counters }: Communicator): Traffic {
  return { bytes: { ...counters.bytes }, messages: { ...counters.messages } };
}

function startStep(communicator: Communicator, arena: Arena, step: Step, index: number, traffic: Traffic): Started {
  const { rank, size } = communicator;
  const { purpose, blocking } = step;
  const length = (from: number, to: number): number => step.lengths[from * size + to];
  const ranks = Array.from({ length: size }, (_, other) => other);
  const count = (bytes: number): void => {
    if (bytes === 0) return;
    traffic.bytes[purpose] += bytes;
    traffic.messages[purpose]++;
  };
  const others = ranks.filter((other) => other !== rank);

  if (step.collective === 'barrier') {
    if (!blocking) return { request: communicator.startBarrier(), check: () => undefined };
    communicator.barrier();
    return { request: undefined, check: () => undefined };
  }

  if (step.collective === 'broadcast') {
    const root = step.root % size;
    const buffer = arena.bytes(length(0, 0));
    buffer.forEach((_, i) => (buffer[i] = testByte(index, rank, 0, i)));
    if (rank === root) others.forEach(() => count(buffer.length));
    const check = (): void => buffer.forEach((byte, i) => assert.equal(byte, testByte(index, root, 0, i)));
    if (!blocking) return { request: communicator.startBroadcast(buffer, root, purpose), check };
    communicator.broadcast(buffer, root, purpose);
    return { request: undefined, check };
  }

  if (step.collective === 'allGather') {
    const counts = Int32Array.from(ranks, (other) => length(0, other));
    const starts = startsOf(counts);
    const receive = arena.bytes(starts[size]);
    const own = step.inPlace ? receive.subarray(starts[rank], starts[rank + 1]) : arena.bytes(counts[rank]);
    own.forEach((_, i) => (own[i] = testByte(index, rank, 0, i)));
    others.forEach(() => count(own.length));
    const check = (): void => {
      for (const other of ranks) {
        for (let i = 0; i < counts[other]; i++) {
          assert.equal(receive[starts[other] + i], testByte(index, other, 0, i), `byte ${i} of rank ${other}`);
        }
      }
    };
    if (!blocking) return { request: communicator.startAllGather(own, receive, counts, purpose), check };
    communicator.allGather(own, receive, counts, purpose);
    return { request: undefined, check };
  }

  if (step.collective === 'allToAll') {
    const sendCounts = Int32Array.from(ranks, (other) => length(rank, other));
    const receiveCounts = Int32Array.from(ranks, (other) => length(other, rank));
    // Segments lie in reverse order with a gap, so that displacements matter.
    const sendStarts = reversedStarts(sendCounts);
    const limits = receiveCounts.map((bytes, other) => (step.inPlace ? bytes + ((index + other) % 3) * 1000 : bytes));
    const received = step.inPlace ? new Int32Array(size).fill(-1) : undefined;
    const receiveStarts = reversedStarts(limits);
    const send = arena.bytes(sendStarts[size]);
    const receive = arena.bytes(receiveStarts[size]).fill(255);
    for (const other of ranks) {
      for (let i = 0; i < sendCounts[other]; i++) send[sendStarts[other] + i] = testByte(index, rank, other, i);
    }
    others.forEach((other) => count(sendCounts[other]));
    const check = (): void => {
      const expected = new Uint8Array(receive.length).fill(255);
      for (const other of ranks) {
        for (let i = 0; i < receiveCounts[other]; i++) {
          expected[receiveStarts[other] + i] = testByte(index, other, rank, i);
        }
      }
      assert.deepEqual(receive.slice(), expected);
      if (received !== undefined) assert.deepEqual(received, receiveCounts);
    };
    const buffers = [
      send,
      sendCounts,
      sendStarts.subarray(0, size),
      receive,
      limits,
      receiveStarts.subarray(0, size),
      purpose,
      received,
    ] as const;
    if (!blocking) return { request: communicator.startAllToAll(...buffers), check };
    communicator.allToAll(...buffers);
    return { request: undefined, check };
  }

  if (step.collective === 'reduceScatter') {
    const counts = Int32Array.from(ranks, (other) => length(0, other));
    const starts = startsOf(counts);
    const send = arena.floats(starts[size]);
    send.forEach((_, i) => (send[i] = testFloat(index, rank, i)));
    const receive = arena.floats(counts[rank]);
    others.forEach((other) => count(4 * counts[other]));
    const check = (): void => {
      receive.forEach((sum, i) => {
        const expected = treeSum(ranks.map((other) => testFloat(index, other, starts[rank] + i)));
        assert.ok(Object.is(sum, expected), `float ${i}: ${sum} is not ${expected}`);
      });
    };
    if (!blocking) return { request: communicator.startReduceScatter(send, counts, receive, purpose), check };
    communicator.reduceScatter(send, counts, receive, purpose);
    return { request: undefined, check };
  }

  if (step.collective === 'allReduce') {
    const total = length(0, 0);
    const buffer = arena.floats(total);
    buffer.forEach((_, i) => (buffer[i] = testFloat(index, rank, i)));
    const shard = (other: number): number => Math.floor(total / size) + (other < total % size ? 1 : 0);
    others.forEach((other) => {
      count(4 * shard(other));
      count(4 * shard(rank));
    });
    const check = (): void => {
      buffer.forEach((sum, i) => {
        const expected = treeSum(ranks.map((other) => testFloat(index, other, i)));
        assert.ok(Object.is(sum, expected), `float ${i}: ${sum} is not ${expected}`);
      });
    };
    if (!blocking) return { request: communicator.startAllReduce(buffer, purpose), check };
    communicator.allReduce(buffer, purpose);
    return { request: undefined, check };
  }

  const buffer = arena.integers(length(0, 0));
  const value = (other: number, i: number): number => (Math.imul(other * 977 + i, 7919) % 1000) - 500;
  buffer.forEach((_, i) => (buffer[i] = value(rank, i)));
  others.forEach(() => count(buffer.byteLength));
  communicator.allReduceMaximum(buffer, purpose);
  const check = (): void => {
    buffer.forEach((maximum, i) => assert.equal(maximum, Math.max(...ranks.map((other) => value(other, i)))));
  };
  return { request: undefined, check };
}

/** [size + 1] running sums. */
function startsOf(counts: Int32Array): Int32Array {
  const starts = new Int32Array(counts.length + 1);
  counts.forEach((count, rank) => (starts[rank + 1] = starts[rank] + count));
  return starts;
}

/** [size + 1]: starts of segments laid out from the last rank to the first with 3 bytes between; then the length. */
function reversedStarts(counts: Int32Array): Int32Array {
  const starts = new Int32Array(counts.length + 1);
  let end = 0;
  for (let rank = counts.length - 1; rank >= 0; rank--) {
    starts[rank] = end;
    end += counts[rank] + 3;
  }
  starts[counts.length] = end;
  return starts;
}

/** A program from a seed, for runs that are not generated by fast-check. */
export function seededProgram(seed: number, size: number, steps: number): Program {
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  return {
    steps: Array.from({ length: steps }, () => ({
      collective: collectives[random(collectives.length)],
      purpose: purposes[random(purposes.length)],
      blocking: random(4) === 0,
      inPlace: random(2) === 0,
      root: random(64),
      lengths: Array.from({ length: size * size }, () => [0, random(50), random(3000)][random(3)]),
    })),
    waitOrder: Array.from({ length: steps }, () => random(100) - 20),
  };
}
