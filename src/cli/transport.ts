/** --transport and what goes with it, for every verb that starts ranks. */
import type { ArgsDef } from 'citty';
import {
  isInsideMpi,
  rankInsideMpi,
  sizeInsideMpi,
  tasksOfAllocation,
  tasksWithoutMpi,
} from '../comm/mpi-environment.ts';
import { joinProcesses } from '../comm/mpi-join.ts';
import { mpiProblem } from '../comm/mpi-rank-group.ts';
import { transportNames, type SessionOptions, type TransportName } from '../engine/api.ts';
import { ExitStatus } from '../errors.ts';
import { mpirunArgumentsHere } from '../testbed/mpi.ts';
import { usageError } from './arguments.ts';
import type { Flags } from './flags.ts';

export const transportArgs: ArgsDef = {
  transport: {
    type: 'string',
    valueHint: 'NAME',
    default: 'threads',
    description: 'What ranks are: threads of this process, or mpi: processes, on one host or many',
  },
  hosts: {
    type: 'string',
    valueHint: 'A,B:2',
    description: 'With mpi: hosts to start ranks on, with how many (1 when not said); this host when not given',
  },
  hostfile: { type: 'string', valueHint: 'FILE', description: 'With mpi: hosts to start ranks on, as for mpirun' },
  'mpirun-args': {
    type: 'string',
    valueHint: 'ARGS',
    description: 'With mpi: more options for mpirun, parted by spaces, written --mpirun-args="--mca ..."',
  },
};

/** How a verb's sessions start their ranks. */
export interface Transport {
  name: TransportName;
  /** For `openSession`. */
  sessionOptions: Pick<SessionOptions, 'transport' | 'mpi'>;
  /** Ranks that the hosts call for when the layout does not say. */
  ranks: number | undefined;
  /** Throws unless a session of so many ranks is possible. */
  assertRanks(ranks: number): void;
  /** What the ranks of a session talk over, for people. */
  network(hosts: readonly string[]): string;
}

type Environment = Record<string, string | undefined>;

const anyRanks = (): void => undefined;

/** What the flags and the environment say; throws for what does not go together. Starts nothing. */
export function readTransport(flags: Flags, environment: Environment = process.env): Transport {
  const name = flags.choice('transport', transportNames);
  const onTestbed = mpirunArgumentsHere(environment);
  // `smoe testbed --hosts` counts hosts, and its SMOE_HOSTS reaches the command it runs.
  const countsHosts = onTestbed !== undefined && /^\d+$/.test(flags.optional('hosts') ?? '');
  const given = ['hosts', 'hostfile', 'mpirun-args'].filter(
    (flag) => flags.has(flag) && !(flag === 'hosts' && countsHosts),
  );
  if (name !== 'mpi') {
    if (given.length === 0) {
      const sessionOptions = { transport: name };
      return { name, sessionOptions, ranks: undefined, assertRanks: anyRanks, network: () => 'shared memory' };
    }
    throw usageError('USAGE_BAD_VALUE', `--${given[0]} has no meaning with --transport ${name}`, {
      hint: 'add --transport mpi',
    });
  }
  if (given.includes('hosts') && given.includes('hostfile')) {
    throw usageError('USAGE_BAD_VALUE', '--hostfile: --hosts is given too', { hint: 'give one of the two' });
  }
  if (isInsideMpi(environment)) {
    if (given.length > 0) {
      throw usageError('USAGE_BAD_VALUE', `--${given[0]}: this process was started by mpirun, which knows its hosts`, {
        hint: `give that to mpirun, or start smoe without mpirun`,
      });
    }
    const started = sizeInsideMpi(environment);
    const assertRanks = (ranks: number): void => {
      if (started === undefined || started === ranks) return;
      throw usageError('RANK_COUNT', `${ranks} ranks are wanted, ${started} processes have been started`, {
        hint: `start ${ranks} with mpirun -n ${ranks} (srun -n ${ranks}), or ask for ${started} ranks`,
      });
    };
    return { name, sessionOptions: { transport: name }, ranks: started, assertRanks, network: describeHosts };
  }
  const tasks = tasksWithoutMpi(environment);
  if (tasks !== undefined) {
    throw usageError(
      'MPI_SLURM',
      `srun has started ${tasks} tasks that MPI knows nothing of: each would start ranks of its own`,
      {
        hint: 'srun --mpi=pmix (srun --mpi=list shows whether it is there), or one process: salloc -n N smoe ...',
      },
    );
  }
  const more = flags.has('mpirun-args') ? flags.string('mpirun-args').trim().split(/\s+/) : [];
  if (given.includes('hosts') || given.includes('hostfile') || onTestbed === undefined) {
    const hosts = given.includes('hosts') ? flags.list('hosts') : undefined;
    const hostfile = given.includes('hostfile') ? flags.string('hostfile') : undefined;
    const mpi = {
      mpirunArguments: more,
      ...(hosts === undefined ? {} : { hosts }),
      ...(hostfile === undefined ? {} : { hostfile }),
    };
    return {
      name,
      sessionOptions: { transport: name, mpi },
      ranks: hosts === undefined && hostfile === undefined ? tasksOfAllocation(environment) : hosts && slotsOf(hosts),
      assertRanks: anyRanks,
      network: describeHosts,
    };
  }
  return {
    name,
    sessionOptions: { transport: name, mpi: { mpirunArguments: [...onTestbed, ...more] } },
    ranks: Number(environment.SMOE_TESTBED_RANKS),
    assertRanks: anyRanks,
    network: (hosts) => `testbed ${environment.SMOE_TESTBED}, ${describeHosts(hosts)}`,
  };
}

/**
 * Runs a verb over the transport its flags name. Where mpirun has started this program on every rank, rank 0 runs the verb and the
 * others serve it.
 */
export async function withTransport(
  flags: Flags,
  run: (transport: Transport) => Promise<ExitStatus>,
): Promise<ExitStatus> {
  const transport = readTransport(flags);
  if (transport.name !== 'mpi') return run(transport);
  if (!isInsideMpi()) {
    const problem = await mpiProblem();
    if (problem !== undefined) throw problem;
    return run(transport);
  }
  if (rankInsideMpi() > 0) {
    await joinProcesses().follow();
    return ExitStatus.done;
  }
  const processes = joinProcesses();
  try {
    return await run({ ...transport, ranks: processes.size });
  } finally {
    processes.leave();
  }
}

/** How many ranks "a:2,b" has room for. */
function slotsOf(hosts: string[]): number {
  return hosts.reduce((sum, host) => sum + Number(/:(\d+)$/.exec(host)?.[1] ?? 1), 0);
}

function describeHosts(hosts: readonly string[]): string {
  const names = [...new Set(hosts)];
  if (names.length === 1) return 'shared memory';
  return `${names.length} hosts (${names.slice(0, 8).join(', ')}${names.length > 8 ? ', ...' : ''})`;
}
