import { performance } from 'node:perf_hooks';
import type { Communicator } from '../comm/communicator.ts';
import type { RankContext, RankJob } from '../comm/rank-protocol.ts';
import { undisturbed } from './undisturbed.ts';

/** Bytes that each rank sends each other rank. */
export const pairBytes: readonly number[] = [8, 1024, 4096, 16_384, 65_536, 524_288];
const repeats = 15;
const warmUps = 4;
/** What a rank computes between two collectives, as in a decode step. */
const computingMs = 0.2;

/** One rank of the measurement of collectives: [sizes] seconds of an all-to-all as this rank sees it. */
export function createRank({ communicator, size }: RankContext): RankJob<undefined, number[]> {
  const half = size * pairBytes.at(-1)!;
  const pages = Math.ceil((2 * half) / 65_536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  communicator.attachMemory(memory);
  // Pages never written all map to one page of zeros, which would flatter every figure.
  new Uint8Array(memory.buffer).fill(1);
  return () => {
    const rounds = roundsWithin(computingMs);
    return pairBytes.map((bytes) => measure(communicator, memory, half, bytes, rounds));
  };
}

/**
 * Ranks of a run compute before they meet in a collective, and where they share cores one that only waits may wait for a core as
 * well. So the time is that of computing and exchanging in turns, less that of computing alone.
 */
function measure(
  communicator: Communicator,
  memory: WebAssembly.Memory,
  half: number,
  bytes: number,
  rounds: number,
): number {
  const { size } = communicator;
  const counts = new Int32Array(size).fill(bytes);
  const starts = Int32Array.from({ length: size }, (_, rank) => rank * bytes);
  const send = new Uint8Array(memory.buffer, 0, size * bytes);
  const receive = new Uint8Array(memory.buffer, half, size * bytes);
  const calls = bytes < 65_536 ? 50 : 5;
  const timed = (exchanges: boolean): number => {
    communicator.barrier();
    const started = performance.now();
    for (let call = 0; call < calls; call++) {
      compute(rounds);
      if (exchanges) communicator.allToAll(send, counts, starts, receive, counts, starts, 'control');
    }
    return (performance.now() - started) / 1000 / calls;
  };
  const together: number[] = [];
  const computing: number[] = [];
  for (let repeat = -warmUps; repeat < repeats; repeat++) {
    const both = timed(true);
    const alone = timed(false);
    if (repeat < 0) continue;
    together.push(both);
    computing.push(alone);
  }
  return Math.max(undisturbed(together) - undisturbed(computing), 1e-7);
}

let computed = 1;

function compute(rounds: number): void {
  let value = computed;
  for (let round = 0; round < rounds; round++) value = Math.sqrt(value + round);
  computed = value;
}

/** How much a core that does nothing else computes in so many milliseconds. */
function roundsWithin(milliseconds: number): number {
  const rounds = 20_000;
  let shortest = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 200; attempt++) {
    const started = performance.now();
    compute(rounds);
    shortest = Math.min(shortest, performance.now() - started);
  }
  return Math.round((rounds * milliseconds) / shortest);
}
