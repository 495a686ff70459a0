/**
 * A host to be interrupted, killed or cut off: prints the process ids of its ranks as JSON, then has them do what the argument
 * says, and prints the error that ends it. On a testbed, its hosts' ranks.
 */
import { launchMpiRanks } from '../../src/comm/mpi-rank-group.ts';
import { mpirunArgumentsHere } from '../../src/testbed/mpi.ts';
import type { MpiTestJob } from './mpi-test-rank.ts';

const scenario = process.argv[2] as MpiTestJob['scenario'] | 'idle';
const controller = new AbortController();
process.on('SIGINT', () => controller.abort());
const group = await launchMpiRanks<MpiTestJob, unknown>({
  size: Number(process.env.SMOE_TESTBED_RANKS ?? 2),
  entry: new URL(import.meta.resolve('./mpi-test-rank.js')),
  mpirunArguments: mpirunArgumentsHere(process.env) ?? [],
});
const reports = (await group.run({ scenario: 'pids' })) as { pid: number }[];
console.log(JSON.stringify(reports.map(({ pid }) => pid)));
if (scenario === 'idle') await new Promise((resolve) => setTimeout(resolve, 60_000));
else {
  try {
    await group.run({ scenario }, { signal: controller.signal });
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    console.log(process.env.SMOE_TESTBED === undefined ? code : `${code}: ${message}`);
  }
}
