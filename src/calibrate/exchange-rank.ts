import { performance } from 'node:perf_hooks';
import type { Communicator } from '../comm/communicator.ts';
import type { RankContext, RankJob } from '../comm/rank-protocol.ts';
import { undisturbed } from './undisturbed.ts';

/** Bytes that each rank sends each other rank. */
export const pairBytes: readonly number[] = [8, 4096, 65_536, 524_288];
const repeats = 15;
const warmUps = 4;

/** One rank of the measurement of collectives: [sizes] seconds of an all-to-all as this rank sees it. */
export function createRank({ communicator, size }: RankContext): RankJob<undefined, number[]> {
  const half = size * pairBytes.at(-1)!;
  const pages = Math.ceil((2 * half) / 65_536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  communicator.attachMemory(memory);
  // Pages never written all map to one page of zeros, which would flatter every figure.
  new Uint8Array(memory.buffer).fill(1);
  return () => pairBytes.map((bytes) => measure(communicator, memory, half, bytes));
}

function measure(communicator: Communicator, memory: WebAssembly.Memory, half: number, bytes: number): number {
  const { size } = communicator;
  const counts = new Int32Array(size).fill(bytes);
  const starts = Int32Array.from({ length: size }, (_, rank) => rank * bytes);
  const send = new Uint8Array(memory.buffer, 0, size * bytes);
  const receive = new Uint8Array(memory.buffer, half, size * bytes);
  const calls = bytes < 65_536 ? 50 : 5;
  const seconds: number[] = [];
  for (let repeat = -warmUps; repeat < repeats; repeat++) {
    communicator.barrier();
    const started = performance.now();
    for (let call = 0; call < calls; call++)
      communicator.allToAll(send, counts, starts, receive, counts, starts, 'control');
    if (repeat >= 0) seconds.push((performance.now() - started) / 1000 / calls);
  }
  return undisturbed(seconds);
}
