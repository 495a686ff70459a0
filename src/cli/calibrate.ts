import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { calibrate, type Calibration } from '../calibrate/calibration.ts';
import { clusterText, type DescribedHosts } from '../calibrate/cluster-text.ts';
import { calibratedTransports } from '../calibrate/exchange-cost.ts';
import { ExitStatus, SmoeError } from '../errors.ts';
import { loadTokenizer } from '../model/tokenizer.ts';
import { hostSlotsHere, mpirunArgumentsHere } from '../testbed/mpi.ts';
import { usageError } from './arguments.ts';
import type { Console } from './console.ts';
import type { Flags } from './flags.ts';
import { formatChange, formatMilliseconds } from './format.ts';
import { renderJson } from './json.ts';
import { demoProfile, readModel } from './model-directory.ts';
import { readDocuments } from './prompts.ts';
import { jsonArgs, modelArgs, readOutputPath } from './shared-args.ts';
import { renderTable } from './table.ts';
import type { Verb } from './verb.ts';

/** Prompts are drawn from this much of the text. */
const mostTokens = 20_000;

export const calibrateVerb: Verb = {
  name: 'calibrate',
  summary: 'Measure this machine with the engine’s own pieces and write a cluster file for simulate',
  args: {
    ...modelArgs,
    out: { type: 'string', valueHint: 'FILE', required: true, description: 'Cluster file to write (.yaml)' },
    ranks: { type: 'string', valueHint: 'N', description: 'Ranks that will share this machine; 4 when not given' },
    cores: { type: 'string', valueHint: 'N', description: 'Cores they share; those of this machine when not given' },
    transport: {
      type: 'string',
      valueHint: 'NAME',
      default: 'threads',
      description: `How ranks exchange: ${calibratedTransports.join(', ')}`,
    },
    hosts: {
      type: 'string',
      valueHint: 'N',
      default: '1',
      description: 'Describe the ranks as so many hosts, such as those of `smoe testbed`',
    },
    gigabits: { type: 'string', valueHint: 'X', description: 'With --hosts: speed of a host’s link, Gbit/s' },
    'latency-us': {
      type: 'string',
      valueHint: 'X',
      default: '0',
      description: 'With --hosts: latency that the links add, microseconds one way',
    },
    text: { type: 'string', valueHint: 'FILE', description: 'Text (.jsonl or .txt); shipped texts when not given' },
    repeats: { type: 'string', valueHint: 'N', default: '5', description: 'Times that every piece is measured' },
    ...jsonArgs,
  },
  examples: [
    { command: 'calibrate --out machine.yaml', does: 'four ranks as threads of this machine' },
    {
      command: 'calibrate --out testbed.yaml --transport mpi --hosts 4 --gigabits 0.94',
      does: 'four hosts on this machine, joined by links of that speed',
    },
    {
      command: 'testbed run --rate 1gbit -- smoe calibrate --transport mpi --out testbed.yaml',
      does: 'the hosts of a testbed, their links measured',
    },
  ],
  async run({ flags, console, signal }) {
    const out = readOutputPath(flags)!;
    const transport = flags.choice('transport', calibratedTransports);
    const testbed = transport === 'mpi' && !flags.has('gigabits') ? testbedHere() : undefined;
    const ranks = flags.has('ranks') ? flags.integer('ranks', { minimum: 2, maximum: 64 }) : (testbed?.ranks ?? 4);
    if (testbed !== undefined && testbed.ranks !== ranks) {
      throw usageError('USAGE_BAD_VALUE', `--ranks: this testbed has ${testbed.ranks}`, { hint: 'leave --ranks out' });
    }
    const hosts = testbed === undefined ? readHosts(flags, ranks) : undefined;
    const cores = flags.has('cores')
      ? flags.integer('cores', { minimum: 1, maximum: availableParallelism() })
      : availableParallelism();
    const { directory, name, config, fingerprint } = readModel(flags);
    const calibration = await calibrate({
      ...{ modelDirectory: directory, config, modelFingerprint: fingerprint, cores, ranks, transport, signal },
      ...(testbed === undefined ? {} : { testbed }),
      tokens: readTokens(flags.optional('text') ?? demoProfile, directory),
      repeats: flags.integer('repeats', { minimum: 1, maximum: 1000 }),
      onProgress: (what) => console.progress(`measuring: ${what}`),
    });
    console.progress(undefined);
    const title = `Measured by \`smoe calibrate\`: ${cpus()[0]?.model.trim()}, ${cores} cores, Node.js ${process.version}, model ${name}`;
    const cluster = clusterText(calibration, {
      title,
      memoryGB: totalmem() / 1e9 / ranks,
      ...(hosts === undefined ? {} : { hosts }),
    });
    try {
      writeFileSync(out, cluster);
    } catch (cause) {
      throw new SmoeError('OUTPUT_WRITE', `${out}: cannot write: ${(cause as Error).message}`, { cause });
    }
    console.out(
      flags.boolean('json') ? renderJson({ cluster: out, ...calibration }) : render(calibration, out, console),
    );
    return ExitStatus.done;
  },
};

/** The hosts under this process, whose links can be measured and need not be described. */
function testbedHere(): { ranks: number; hosts: number; mpirunArguments: string[] } | undefined {
  const slots = hostSlotsHere(process.env);
  const mpirunArguments = mpirunArgumentsHere(process.env);
  if (slots === undefined || mpirunArguments === undefined) return undefined;
  if (slots.length < 2 || new Set(slots).size > 1) {
    throw usageError('TESTBED_UNEVEN', `the hosts of this testbed have ${slots.join(', ')} ranks`, {
      hint: 'calibrate on two or more hosts that have equally many ranks, such as testbed run --hosts 4',
    });
  }
  return { ranks: slots.length * slots[0]!, hosts: slots.length, mpirunArguments };
}

function readHosts(flags: Flags, ranks: number): DescribedHosts | undefined {
  const count = flags.integer('hosts', { minimum: 1, maximum: ranks });
  if (count === 1) return undefined;
  if (ranks % count !== 0) {
    throw usageError('USAGE_BAD_VALUE', `--hosts: ${count} does not divide ${ranks} ranks`, {
      hint: 'every host has the same number of ranks',
    });
  }
  if (!flags.has('gigabits')) {
    throw usageError('USAGE_MISSING_FLAG', '--gigabits is missing', { hint: 'the speed of the hosts’ links, Gbit/s' });
  }
  return {
    count,
    gigabitsPerSecond: flags.number('gigabits', { minimum: 1e-6, maximum: 1e6 }),
    latencyUs: flags.number('latency-us', { minimum: 0, maximum: 1e9 }),
  };
}

function readTokens(path: string, directory: string): Int32Array {
  const text = readDocuments(path).map((document) => document.text);
  // A token is at least a byte.
  return loadTokenizer(directory)
    .encode(text.join('\n').slice(0, 8 * mostTokens))
    .slice(0, mostTokens);
}

function render({ pieces, exchange, network, ranks, transport }: Calibration, out: string, { style }: Console): string {
  const row = (name: string, seconds: number, modelled: number): string[] => [
    name,
    formatMilliseconds(seconds * 1000),
    formatMilliseconds(modelled * 1000),
    formatChange(modelled, seconds),
  ];
  const rows = [
    ...pieces.map(({ name, seconds, modelledSeconds }) => row(name, seconds, modelledSeconds)),
    ...exchange.samples.map(({ bytes, seconds, modelledSeconds }) =>
      row(`all-to-all, ${bytes} bytes per rank, ${ranks} ranks, ${transport}`, seconds, modelledSeconds),
    ),
    ...(network?.exchange.samples ?? []).map(({ bytes, seconds, modelledSeconds }) =>
      row(`all-to-all, ${bytes} bytes per host, ${network!.count} hosts`, seconds, modelledSeconds),
    ),
  ];
  const columns = [
    { title: 'piece', align: 'left' as const },
    { title: 'measured', align: 'right' as const },
    { title: 'modelled', align: 'right' as const },
    { title: 'off by', align: 'right' as const },
  ];
  return `${renderTable(columns, rows, (title) => style('bold', title))}\n${out}: written; use it with smoe simulate --cluster ${out}\n`;
}
