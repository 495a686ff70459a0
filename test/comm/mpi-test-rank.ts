/** Ranks for the tests of how MPI groups start and end; scenarios that need other ranks use barriers. */
import { writeSync } from 'node:fs';
import type { RankContext, RankJob } from '../../src/comm/rank-protocol.ts';

export interface MpiTestData {
  /** Rank whose agreement differs from the others'. */
  odd?: number;
}

export interface MpiTestJob {
  scenario: 'pids' | 'echo' | 'wait' | 'spin' | 'poll' | 'print' | 'trap' | 'uncaught';
  payload?: unknown;
}

export function agreementOf(data: MpiTestData | undefined): Record<string, string> {
  const odd = data?.odd !== undefined && Number(process.env.OMPI_COMM_WORLD_RANK) === data.odd;
  return { model: odd ? 'fingerprint-b' : 'fingerprint-a' };
}

export function createRank({ communicator, rank, size }: RankContext): RankJob<MpiTestJob, unknown> {
  return ({ scenario, payload }) => {
    if (scenario === 'echo') return { rank, payload };
    if (scenario === 'poll') {
      // All wait for the last rank, some by testing.
      if (rank === size - 1) for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      const request = communicator.startBarrier();
      if (rank !== 0) request.wait();
      while (!request.test());
    }
    if (scenario === 'wait') {
      // Rank 0 computes for ever, the others wait for it.
      if (rank === 0) for (;;);
      communicator.barrier();
    }
    if (scenario === 'spin') for (;;);
    if (scenario === 'print') {
      console.log(`printed by rank ${rank}`);
      writeSync(1, '\u0000smoe-mpi\u0001 looks like a frame\n');
      process.stdout.write('no line feed');
    }
    if (scenario === 'trap') {
      // (func (export "f") (result i32) (i32.load (i32.const -4)))
      const code = [
        0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 127, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1, 102, 0, 0,
      ];
      const module = new WebAssembly.Module(Uint8Array.from([...code, 10, 9, 1, 7, 0, 65, 124, 40, 2, 0, 11]));
      try {
        (new WebAssembly.Instance(module, {}).exports.f as () => number)();
      } catch (error) {
        return String(error);
      }
    }
    if (scenario === 'uncaught') {
      if (rank === 1) {
        setTimeout(() => {
          throw new Error('thrown in a timer');
        }, 10);
      }
      return new Promise(() => undefined);
    }
    return { rank, pid: process.pid };
  };
}
