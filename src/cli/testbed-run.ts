import { ExitStatus } from '../errors.ts';
import { describeTestbed, withTestbed } from '../testbed/testbed.ts';
import { usageError } from './arguments.ts';
import { renderJson } from './json.ts';
import { jsonArgs } from './shared-args.ts';
import { readTopology, topologyArgs, untilInterrupted } from './testbed-args.ts';
import { renderTestbed, testbedObject } from './testbed-text.ts';
import type { Verb } from './verb.ts';

export const testbedRunVerb: Verb = {
  name: 'testbed run',
  summary: 'Run a command on the first host of a testbed that lasts as long as the command (Linux, root)',
  args: {
    ...topologyArgs,
    name: { type: 'string', valueHint: 'NAME', description: 'Name of the testbed; one of its own when not given' },
    ...jsonArgs,
  },
  takesCommand: true,
  examples: [
    {
      command: `testbed run --hosts 2 --rate 100mbit -- sh -c 'mpirun $SMOE_TESTBED_MPIRUN hostname'`,
      does: 'one MPI rank on each of two hosts',
    },
    {
      command: `testbed run --latency 1ms -- sh -c 'ping -c 5 \${SMOE_TESTBED_ADDRESSES##* }'`,
      does: 'what a link of one millisecond feels like',
    },
  ],
  async run({ flags, console, signal, command }) {
    if (command.length === 0) {
      throw usageError('USAGE_MISSING_ARGUMENT', 'no command to run', {
        hint: 'write it after --, as in: smoe testbed run -- hostname',
      });
    }
    const json = flags.boolean('json');
    const topology = readTopology(flags, flags.optional('name') ?? `run-${process.pid}`);
    return untilInterrupted(signal, (interrupted) =>
      withTestbed(
        topology,
        async (testbed) => {
          if (!json) console.log(renderTestbed(describeTestbed(topology.name)!).trimEnd());
          const { exitCode, endedBy } = await testbed.run(0, command, {
            signal: interrupted,
            output: json ? 'stderr' : 'inherit',
          });
          const description = describeTestbed(topology.name)!;
          if (json)
            console.out(renderJson({ testbed: testbedObject(description, testbed), command, exitCode, endedBy }));
          if (exitCode !== 0) console.log(`${command[0]} ended with ${endedBy ?? `exit status ${exitCode}`}`);
          return exitCode === 0 ? ExitStatus.done : ExitStatus.failed;
        },
        { measure: flags.boolean('measure'), signal: interrupted },
      ),
    );
  },
};
