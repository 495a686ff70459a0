/** A rank that times one all-to-all of 100 KB for each peer. */
import type { RankContext, RankJob } from '../../src/comm/rank-protocol.ts';

export function createRank({ communicator, size }: RankContext): RankJob<undefined, number> {
  const bytes = 100_000;
  const pages = Math.ceil((2 * size * bytes) / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  communicator.attachMemory(memory);
  const counts = new Int32Array(size).fill(bytes);
  const starts = Int32Array.from({ length: size }, (_, rank) => rank * bytes);
  const send = new Uint8Array(memory.buffer, 0, size * bytes);
  const receive = new Uint8Array(memory.buffer, size * bytes, size * bytes);
  return () => {
    communicator.barrier();
    const start = performance.now();
    communicator.allToAll(send, counts, starts, receive, counts, starts, 'dispatch');
    return performance.now() - start;
  };
}
