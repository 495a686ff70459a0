import { mpiProblem } from '../../src/comm/mpi-rank-group.ts';
import { requireTopology, thisMachine } from '../../src/testbed/requirements.ts';
import type { Topology } from '../../src/testbed/topology.ts';

/** Why MPI ranks cannot run on such hosts here; false when they can. */
export async function cannotRunMpiOn(topology: Topology): Promise<string | false> {
  try {
    requireTopology(topology, thisMachine());
  } catch (error) {
    return `no testbed can be made here: ${(error as Error).message}`;
  }
  const problem = await mpiProblem();
  return problem === undefined ? false : `MPI cannot be used here: ${problem.message} (${problem.hint})`;
}
