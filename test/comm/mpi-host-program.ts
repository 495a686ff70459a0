/** A host to be interrupted or killed: prints the process ids of its ranks as JSON, then has them do what the argument says. */
import { launchMpiRanks } from '../../src/comm/mpi-rank-group.ts';
import type { MpiTestJob } from './mpi-test-rank.ts';

const scenario = process.argv[2] as MpiTestJob['scenario'] | 'idle';
const controller = new AbortController();
process.on('SIGINT', () => controller.abort());
const group = await launchMpiRanks<MpiTestJob, unknown>({
  size: 2,
  entry: new URL(import.meta.resolve('./mpi-test-rank.js')),
});
const reports = (await group.run({ scenario: 'pids' })) as { pid: number }[];
console.log(JSON.stringify(reports.map(({ pid }) => pid)));
if (scenario === 'idle') await new Promise((resolve) => setTimeout(resolve, 60_000));
else {
  try {
    await group.run({ scenario }, { signal: controller.signal });
  } catch (error) {
    console.log((error as { code: string }).code);
  }
}
