import type { LinkSettings } from '../src/comm/link-model.ts';
import type { SessionOptions } from '../src/engine/api.ts';
import { testbedTransport } from './testbed-transport.ts';

/** What four ranks of a recipe run on. */
export interface NetworkHere {
  transport: Pick<SessionOptions, 'transport' | 'mpi' | 'link'>;
  /** As results name it. */
  title: string;
}

/**
 * The testbed that this process runs on, else threads with emulated links or shared memory.
 *
 * @param link "RATE_MBIT,LATENCY_MS", or undefined
 * @param mpirunArguments more options for mpirun, separated by spaces
 */
export function networkHere(link: string | undefined, mpirunArguments: string): NetworkHere {
  const onTestbed = testbedTransport(process.env, mpirunArguments.split(' ').filter(Boolean));
  if (onTestbed !== undefined) {
    const more = mpirunArguments === '' ? '' : ` (${mpirunArguments})`;
    return { transport: onTestbed, title: `MPI on the testbed ${process.env.SMOE_TESTBED!}${more}` };
  }
  if (link === undefined) return { transport: { transport: 'threads' }, title: 'shared memory' };
  const title = `emulated links of ${link.replace(',', ' Mbit/s, ')} ms`;
  return { transport: { transport: 'threads', link: linkOf(link) }, title };
}

function linkOf(text: string): LinkSettings {
  const [megabits, latencyMs] = text.split(',').map(Number);
  return { bytesPerSecond: (megabits! * 1e6) / 8, latencyMs: latencyMs ?? 0, ranksPerNode: 1 };
}
