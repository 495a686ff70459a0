import { test } from 'node:test';
import { launchMpiRanks, mpiProblem } from '../../src/comm/mpi-rank-group.ts';
import { runConformance } from './conformance.ts';

const problem = await mpiProblem();
if (problem === undefined) runConformance('mpi', (options) => launchMpiRanks(options));
else test('mpi', { skip: `MPI cannot be used here: ${problem.message} (${problem.hint})` }, () => undefined);
