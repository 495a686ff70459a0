import type { SessionOptions } from '../../src/engine/api.ts';
import { mpirunArgumentsHere } from '../../src/testbed/mpi.ts';

/** Ranks as MPI processes on the hosts of the testbed that this process runs on. */
export function testbedTransport(
  environment: Record<string, string | undefined>,
): Pick<SessionOptions, 'transport' | 'mpi'> {
  const mpirunArguments = mpirunArgumentsHere(environment);
  if (mpirunArguments === undefined) throw new Error('this process does not run on a testbed');
  return { transport: 'mpi', mpi: { mpirunArguments } };
}
