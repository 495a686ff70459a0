import type { SessionOptions } from '../../src/engine/api.ts';

/** Ranks as MPI processes on the hosts of the testbed that this process runs on. */
export function testbedTransport(
  environment: Record<string, string | undefined>,
): Pick<SessionOptions, 'transport' | 'mpi'> {
  const words = environment.SMOE_TESTBED_MPIRUN?.split(' ');
  if (words === undefined) throw new Error('this process does not run on a testbed');
  // The number of ranks is the layout's.
  words.splice(words.indexOf('-np'), 2);
  return { transport: 'mpi', mpi: { mpirunArguments: words } };
}
