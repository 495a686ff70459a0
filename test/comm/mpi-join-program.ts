/** Started by mpirun on every rank: joins the ranks, runs jobs in two groups, prints what came of them on rank 0. */
import { joinProcesses } from '../../src/comm/mpi-join.ts';
import type { ConformanceJob } from './conformance-rank.ts';
import { seededProgram } from './program.ts';

const scenario = process.argv[2] ?? '';
const processes = joinProcesses();
const agreement = { plan: scenario === 'other plan' && processes.rank === 1 ? 'b' : 'a' };
if (processes.rank > 0) await processes.follow(agreement);
else {
  try {
    const events: string[] = [];
    const launch = () =>
      processes.launch<ConformanceJob, unknown, string>({
        size: scenario === 'too many' ? processes.size + 1 : processes.size,
        entry: new URL(import.meta.resolve('./conformance-rank.js')),
        agreement,
        onEvent: (event) => events.push(event),
      });
    const group = await launch();
    if (scenario === 'throwing') await group.run({ scenario: 'throwing' });
    await group.run({ scenario: 'program', program: seededProgram(1, group.size, 30) });
    const second = await launch();
    await second.run({ scenario: 'program', program: seededProgram(2, group.size, 30) });
    const reports = await group.run({ scenario: 'events' });
    await group.close();
    await second.run({ scenario: 'program', program: seededProgram(3, group.size, 30) });
    await second.close();
    processes.leave();
    console.log(JSON.stringify({ reports, events: events.toSorted() }));
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    console.log(`${code}: ${message}`);
    process.exit(1);
  }
}
