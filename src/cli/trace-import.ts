import { ExitStatus } from '../errors.ts';
import { importers, importTrace } from '../trace/importers/index.ts';
import { unknownModel } from '../trace/trace-sink.ts';
import { foreignModelArgs, readForeignModel } from './foreign-model-args.ts';
import { formatCount } from './format.ts';
import { renderJson } from './json.ts';
import { shortPath } from './model-directory.ts';
import { jsonArgs, readOutputPath } from './shared-args.ts';
import type { Verb } from './verb.ts';

const formats = importers.map(({ name }) => name);

export const traceImportVerb: Verb = {
  name: 'trace import',
  summary: 'Convert routing that other programs recorded to a trace',
  args: {
    input: { type: 'positional', required: true, description: 'File or folder to convert' },
    out: { type: 'string', valueHint: 'FILE', required: true, description: 'Trace to write (.parquet)' },
    format: {
      type: 'string',
      valueHint: 'NAME',
      description: `Seen from the input when not given; one of ${formats.join(', ')} (docs/trace-format.md)`,
    },
    model: {
      type: 'string',
      valueHint: 'DIR',
      description: "The model's directory or config.json, for what the data do not say",
    },
    name: {
      type: 'string',
      valueHint: 'NAME',
      description: 'What the trace calls the model; its fingerprint or `unknown` when not given',
    },
    ...foreignModelArgs,
    source: {
      type: 'string',
      valueHint: 'TEXT',
      description: 'What the trace says of its origin; the path when not given',
    },
    'max-tokens': { type: 'string', valueHint: 'N', description: 'Stop after so many tokens' },
    iteration: {
      type: 'string',
      valueHint: 'N',
      description: 'flame-moe: training iteration; the last when not given',
    },
    'sequence-tokens': {
      type: 'string',
      valueHint: 'N',
      default: '2048',
      description: 'flame-moe: tokens of a sequence, as the captures do not mark where one begins',
    },
    python: {
      type: 'string',
      valueHint: 'PROGRAM',
      default: 'python3',
      description: 'sglang-recorder: Python with PyTorch, which reads the dumps',
    },
    ...jsonArgs,
  },
  examples: [
    { command: 'trace import routes.jsonl --out routing.parquet', does: 'find out the format and convert' },
    {
      command: 'trace import answers.jsonl --format sglang --model ./model --out routing.parquet',
      does: 'saved answers of a server',
    },
  ],
  async run({ flags, console, signal }) {
    const input = flags.string('input');
    const out = readOutputPath(flags)!;
    const format = flags.has('format') ? flags.choice('format', formats) : undefined;
    const known = readForeignModel(flags, flags.optional('model'));
    const most = flags.has('max-tokens') ? flags.integer('max-tokens', { minimum: 1 }) : undefined;
    const unnamed = known.fingerprint === unknownModel.fingerprint;
    const report = await importTrace(input, out, {
      model: { ...known, fingerprint: flags.optional('name') ?? known.fingerprint },
      source: flags.optional('source') ?? shortPath(input),
      importer: {
        iteration: flags.has('iteration') ? flags.integer('iteration', { minimum: 0 }) : undefined,
        sequenceTokens: flags.integer('sequence-tokens', { minimum: 1 }),
        python: flags.string('python'),
        signal,
      },
      ...(format === undefined ? {} : { format }),
      ...(most === undefined ? {} : { mostRows: most }),
    });
    if (unnamed && !flags.has('name')) report.notes.push('the model has no name; --name gives one');
    for (const note of report.notes) console.log(note);
    console.out(
      flags.boolean('json')
        ? renderJson({ trace: out, ...report })
        : `${out}: ${report.rows} tokens of ${formatCount(report.requests, 'request')}, read as ${report.format}\n`,
    );
    return ExitStatus.done;
  },
};
