import { ExitStatus } from '../errors.ts';
import { listTestbeds, takeDown } from '../testbed/testbed.ts';
import { usageError } from './arguments.ts';
import { renderJson } from './json.ts';
import { jsonArgs } from './shared-args.ts';
import { defaultTestbed } from './testbed-args.ts';
import type { Verb } from './verb.ts';

export const testbedDownVerb: Verb = {
  name: 'testbed down',
  summary: 'Remove a testbed and everything that runs on it; no error when there is none',
  args: {
    name: { type: 'positional', required: false, description: `Name of the testbed; ${defaultTestbed} when not given` },
    all: { type: 'boolean', description: 'Remove every testbed of this machine' },
    ...jsonArgs,
  },
  examples: [
    { command: 'testbed down', does: 'remove the testbed named default' },
    { command: 'testbed down --all', does: 'remove every testbed' },
  ],
  async run({ flags, console }) {
    const name = flags.optional('name');
    if (flags.boolean('all') && name !== undefined) {
      throw usageError('USAGE_BAD_VALUE', `--all and the name ${name} together`, { hint: 'give one of them' });
    }
    const names = flags.boolean('all') ? listTestbeds().map((testbed) => testbed.name) : [name ?? defaultTestbed];
    const removed = names.filter((each) => takeDown(each));
    if (flags.boolean('json')) console.out(renderJson({ removed }));
    else console.log(removed.length === 0 ? 'no testbed to remove' : `removed ${removed.join(', ')}`);
    return ExitStatus.done;
  },
};
