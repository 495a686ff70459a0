import { ExitStatus } from '../errors.ts';
import {
  describeTestbed,
  findTestbed,
  listTestbeds,
  openTestbed,
  type TestbedDescription,
} from '../testbed/testbed.ts';
import { renderJson } from './json.ts';
import { jsonArgs } from './shared-args.ts';
import { untilInterrupted } from './testbed-args.ts';
import { renderTestbed } from './testbed-text.ts';
import type { Verb } from './verb.ts';

export const testbedStatusVerb: Verb = {
  name: 'testbed status',
  summary: 'List the testbeds of this machine: hosts, addresses, nominal and measured links',
  args: {
    name: { type: 'positional', required: false, description: 'Only this testbed' },
    measure: { type: 'boolean', description: 'Measure the links now; otherwise the last figures are shown' },
    ...jsonArgs,
  },
  examples: [{ command: 'testbed status --measure', does: 'what there is, and what its links carry now' }],
  async run({ flags, console, signal }) {
    const name = flags.optional('name');
    const found = name === undefined ? listTestbeds() : [findTestbed(name)];
    const testbeds: TestbedDescription[] = [];
    for (const testbed of found) {
      if (flags.boolean('measure') && testbed.status === 'up') {
        console.progress(`measuring ${testbed.name}`);
        await untilInterrupted(signal, (interrupted) => openTestbed(testbed.name).measure(interrupted));
      }
      testbeds.push(describeTestbed(testbed.name) ?? testbed);
    }
    if (flags.boolean('json')) console.out(renderJson({ testbeds }));
    else if (testbeds.length === 0) console.log('no testbeds');
    else console.out(testbeds.map((testbed) => renderTestbed(testbed, console.style)).join('\n'));
    return ExitStatus.done;
  },
};
