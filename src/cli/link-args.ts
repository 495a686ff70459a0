import type { ArgsDef } from 'citty';
import type { LinkSettings } from '../comm/link-model.ts';
import type { TransportName } from '../engine/api.ts';
import { SmoeError } from '../errors.ts';
import { parseLatency, parseRate } from '../testbed/topology.ts';
import { usageError } from './arguments.ts';
import type { Flags } from './flags.ts';
import { mostRanks } from './shared-args.ts';
import { formatMicroseconds, formatRate } from './testbed-text.ts';

export const linkArgs: ArgsDef = {
  link: {
    type: 'string',
    valueHint: 'RATE,LATENCY',
    description:
      'Emulate a link for every rank, each way, such as 1gbit,50us: no root, no network; ranks are threads and wait as if it were there',
  },
  'ranks-per-node': {
    type: 'string',
    valueHint: 'N',
    description: 'With --link: N consecutive ranks share memory and one link to the others (1 when not given)',
  },
};

/** --link and --ranks-per-node; undefined without. Only threads can emulate: processes have a real network. */
export function readLink(flags: Flags, transport: TransportName, ranks: number): LinkSettings | undefined {
  const text = flags.optional('link');
  const ranksPerNode = flags.has('ranks-per-node')
    ? flags.integer('ranks-per-node', { minimum: 1, maximum: mostRanks })
    : 1;
  if (text === undefined) {
    if (!flags.has('ranks-per-node')) return undefined;
    throw usageError('USAGE_BAD_VALUE', '--ranks-per-node: there is no link between the nodes', {
      hint: 'give --link RATE,LATENCY too',
    });
  }
  if (transport !== 'threads') {
    throw usageError('USAGE_BAD_VALUE', `--link has no meaning with --transport ${transport}`, {
      hint: 'leave one of the two out; smoe testbed makes shaped links for processes',
    });
  }
  const words = text.split(',').map((word) => word.trim());
  if (words.length > 2) {
    throw usageError('USAGE_BAD_VALUE', `--link: ${JSON.stringify(text)} is not RATE,LATENCY`, {
      hint: 'such as 1gbit,50us, or 100mbit alone',
    });
  }
  const rateMbit = named(() => parseRate(words[0]!));
  const latencyUs = named(() => parseLatency(words[1] ?? '0'));
  if (ranksPerNode >= ranks) {
    throw usageError('USAGE_BAD_VALUE', `--ranks-per-node: ${ranksPerNode} leaves no link between ${ranks} ranks`, {
      hint: 'give fewer than there are ranks',
    });
  }
  return {
    bytesPerSecond: rateMbit === null ? null : (rateMbit * 1e6) / 8,
    latencyMs: latencyUs / 1000,
    ranksPerNode,
  };
}

/** The parsers know nothing of flags. */
function named<Value>(parse: () => Value): Value {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof SmoeError)) throw error;
    const { message, hint } = error;
    throw usageError('USAGE_BAD_VALUE', `--link: ${message}`, hint === undefined ? {} : { hint });
  }
}

/** What a report calls the network. */
export function describeLink({ bytesPerSecond, latencyMs, ranksPerNode }: LinkSettings): string {
  const rate = bytesPerSecond === null ? 'no limit' : formatRate((bytesPerSecond * 8) / 1e6);
  const between = ranksPerNode === 1 ? 'ranks' : `nodes of ${ranksPerNode} ranks`;
  return `emulated links between ${between} (${rate}, ${formatMicroseconds(latencyMs * 1000)} one way)`;
}
