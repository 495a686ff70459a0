import { ExitStatus } from '../errors.ts';
import { bringUp, describeTestbed, dryRun } from '../testbed/testbed.ts';
import { renderJson } from './json.ts';
import { jsonArgs } from './shared-args.ts';
import { defaultTestbed, readTopology, topologyArgs, untilInterrupted } from './testbed-args.ts';
import { renderTestbed, testbedObject } from './testbed-text.ts';
import type { Verb } from './verb.ts';

export const testbedUpVerb: Verb = {
  name: 'testbed up',
  summary: 'Make several hosts with shaped links on this machine, until testbed down (Linux, root)',
  args: {
    name: { type: 'positional', required: false, description: `Name of the testbed; ${defaultTestbed} when not given` },
    ...topologyArgs,
    'dry-run': { type: 'boolean', description: 'Print the commands it would run, change nothing; needs no root' },
    ...jsonArgs,
  },
  examples: [
    { command: 'testbed up --hosts 4 --rate 1gbit --latency 50us', does: 'four equal hosts' },
    {
      command: 'testbed up two --hosts 2 --ranks-per-host 4 --rate 100mbit',
      does: 'two hosts of four ranks: shared memory inside, a slow link between',
    },
  ],
  async run({ flags, console, signal }) {
    const topology = readTopology(flags, flags.optional('name') ?? defaultTestbed);
    if (flags.boolean('dry-run')) {
      const commands = dryRun(topology);
      console.out(flags.boolean('json') ? renderJson({ topology, commands }) : `${commands.join('\n')}\n`);
      return ExitStatus.done;
    }
    console.progress(`bringing up testbed ${topology.name}`);
    const testbed = await untilInterrupted(signal, (interrupted) =>
      bringUp(topology, { measure: flags.boolean('measure'), signal: interrupted }),
    );
    const description = describeTestbed(topology.name)!;
    if (flags.boolean('json')) {
      console.out(renderJson(testbedObject(description, testbed)));
    } else {
      console.out(renderTestbed(description, console.style));
      console.log(`on a host: ${testbed.agent} 0 COMMAND`);
      console.log(`remove it: smoe testbed down ${topology.name}`);
    }
    return ExitStatus.done;
  },
};
