import type { ArgsDef } from 'citty';
import { heterogeneous, parseLatency, parseRate, topologyLimits, type Topology } from '../testbed/topology.ts';
import { usageError } from './arguments.ts';
import type { Flags } from './flags.ts';

export const defaultTestbed = 'default';

export const topologyArgs: ArgsDef = {
  hosts: { type: 'string', valueHint: 'N', default: '4', description: 'Hosts, each with a link of its own' },
  'ranks-per-host': {
    type: 'string',
    valueHint: 'N[,N...]',
    default: '1',
    description: 'Ranks that share the memory of one host; one number for all hosts or one for each',
  },
  rate: {
    type: 'string',
    valueHint: 'RATE[,RATE...]',
    default: '1gbit',
    description:
      "Rate of a host's link, each way, such as 100mbit or 2.5gbit, or none; one for all hosts or one for each",
  },
  latency: {
    type: 'string',
    valueHint: 'TIME[,TIME...]',
    default: '0',
    description: 'One-way delay of what a host sends, such as 50us or 2ms; one for all hosts or one for each',
  },
  measure: {
    type: 'boolean',
    default: true,
    description: 'Measure the links once they are up; --no-measure saves two seconds',
  },
};

export function readTopology(flags: Flags, name: string): Topology {
  const hosts = flags.integer('hosts', { minimum: 2, maximum: topologyLimits.hosts });
  const ranks = perHost(flags, 'ranks-per-host', hosts, (text) => (/^\d+$/.test(text) ? Number(text) : Number.NaN));
  const rates = perHost(flags, 'rate', hosts, parseRate);
  const latencies = perHost(flags, 'latency', hosts, parseLatency);
  return heterogeneous({
    name,
    hosts: ranks.map((rank, host) => ({
      ranks: rank,
      rateMbit: rates[host]!,
      latencyUs: latencies[host]!,
    })),
  });
}

/** One value for every host, or a list with one for each. */
function perHost<Value>(flags: Flags, name: string, hosts: number, parse: (text: string) => Value): Value[] {
  const values = flags.string(name).split(',');
  if (values.length !== 1 && values.length !== hosts) {
    throw usageError('USAGE_BAD_VALUE', `--${name}: ${values.length} values for ${hosts} hosts`, {
      hint: 'give one value for all hosts, or one for each',
    });
  }
  const parsed = values.map((text) => parse(text.trim()));
  return Array.from({ length: hosts }, (_, host) => parsed[values.length === 1 ? 0 : host]!);
}

/** `signal`, aborted also when the terminal goes away: a testbed is to be removed then too. */
export async function untilInterrupted<Result>(
  signal: AbortSignal,
  use: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const hangup = new AbortController();
  const onHangup = (): void => hangup.abort();
  process.on('SIGHUP', onHangup);
  try {
    return await use(AbortSignal.any([signal, hangup.signal]));
  } finally {
    process.off('SIGHUP', onHangup);
  }
}
