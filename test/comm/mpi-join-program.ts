/** Started by mpirun on every rank: joins the ranks, runs two jobs, prints what came of them on rank 0. */
import { joinMpiRanks } from '../../src/comm/mpi-join.ts';
import type { ConformanceJob } from './conformance-rank.ts';
import { seededProgram } from './program.ts';

const events: string[] = [];
const rank = Number(process.env.OMPI_COMM_WORLD_RANK);
const failing = process.argv[2] === 'throwing';
try {
  const group = await joinMpiRanks<ConformanceJob, unknown, string>({
    entry: new URL(import.meta.resolve('./conformance-rank.js')),
    agreement: { plan: process.argv[2] === 'other plan' && rank === 1 ? 'b' : 'a' },
    onEvent: (event) => events.push(event),
  });
  if (group !== undefined) {
    if (failing) await group.run({ scenario: 'throwing' });
    await group.run({ scenario: 'program', program: seededProgram(1, group.size, 30) });
    const reports = await group.run({ scenario: 'events' });
    await group.close();
    console.log(JSON.stringify({ reports, events: events.toSorted() }));
  }
} catch (error) {
  const { code, message } = error as { code: string; message: string };
  if (rank === 0) console.log(`${code}: ${message}`);
  process.exit(1);
}
