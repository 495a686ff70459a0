import type { SessionOptions } from '../src/engine/api.ts';
import { mpirunArgumentsHere } from '../src/testbed/mpi.ts';

/** Ranks as MPI processes on the hosts of the testbed that this process runs on; undefined elsewhere. `more`: options for mpirun. */
export function testbedTransport(
  environment: Record<string, string | undefined>,
  more: string[],
): Pick<SessionOptions, 'transport' | 'mpi'> | undefined {
  const mpirunArguments = mpirunArgumentsHere(environment);
  return mpirunArguments && { transport: 'mpi', mpi: { mpirunArguments: [...mpirunArguments, ...more] } };
}
