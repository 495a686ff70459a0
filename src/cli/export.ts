import { dirname } from 'node:path';
import { ExitStatus, SmoeError } from '../errors.ts';
import { readExportModel } from '../export/export-model.ts';
import { checkExport, exportPlan } from '../export/export-plan.ts';
import { type Attention, type Backend, checkpointFormat, type EngineExporter } from '../export/exporter.ts';
import { exporters } from '../export/index.ts';
import { openCheckpoint } from '../model/checkpoint.ts';
import { fingerprint } from '../model/fingerprint.ts';
import type { Plan } from '../plan/plan.ts';
import { readPlan } from '../plan/plan-file.ts';
import { readTrace } from '../trace/parquet.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { usageError } from './arguments.ts';
import { suggestion } from './did-you-mean.ts';
import { renderCheck, renderExport } from './export-text.ts';
import type { Flags } from './flags.ts';
import { renderJson } from './json.ts';
import { demoDirectory } from './model-directory.ts';
import { jsonArgs, readOutputPath } from './shared-args.ts';
import type { Verb, VerbContext } from './verb.ts';

const engines = exporters.map(({ name }) => name);
const attentions = ['tp', 'dp'] as const;

export const exportVerb: Verb = {
  name: 'export',
  summary: "Write a plan in an engine's own format, checked, with the flags that start the engine with it",
  args: {
    plan: { type: 'positional', required: false, description: 'Plan to export (.json)' },
    to: { type: 'string', valueHint: 'ENGINE', required: true, description: `One of: ${engines.join(', ')}` },
    model: {
      type: 'string',
      valueHint: 'DIR',
      description:
        "The model's directory or config.json, which tells its dense layers; the shipped model when not given",
    },
    out: {
      type: 'string',
      valueHint: 'FILE',
      description: 'File to write, or directory with --format checkpoint; a sidecar FILE.smoe.json goes beside it',
    },
    check: {
      type: 'string',
      valueHint: 'FILE',
      description: 'Write nothing: check this file for the engine, and against PLAN when given',
    },
    ranks: {
      type: 'string',
      valueHint: 'N',
      description: "Expert-parallel ranks of the server; the plan's devices when not given, and no other number",
    },
    backend: {
      type: 'string',
      valueHint: 'NAME',
      description: `How the engine exchanges tokens; the first when not given. ${exporters.map((engine) => `${engine.name}: ${engine.backends.map(({ name }) => name).join(', ')}`).join('; ')}`,
    },
    attention: {
      type: 'string',
      valueHint: 'tp|dp',
      description: 'Attention of the server tensor- or data-parallel; what the engine can gain with when not given',
    },
    format: {
      type: 'string',
      valueHint: 'NAME',
      description: `Form of the file: ${checkpointFormat} (a copy of the checkpoint with its experts renumbered, for any engine), or ${exporters
        .filter(({ formats }) => formats.length > 1)
        .map(({ name, formats }) => `for ${name} ${formats.join(', ')}`)
        .join('; ')}`,
    },
    trace: {
      type: 'string',
      valueHint: 'TRACE',
      description: 'Routing trace, to fill up ranks with copies of the experts most used',
    },
    'drop-copies': {
      type: 'boolean',
      description: "Leave the plan's copies of experts out; its promise goes with them",
    },
    'allow-no-gain': { type: 'boolean', description: 'Write although the exchange cannot save bytes' },
    'dense-layers': {
      type: 'string',
      valueHint: 'LIST',
      description: 'Layers without experts, such as 0,1,2, where config.json does not tell; none: -',
    },
    ...jsonArgs,
  },
  examples: [
    { command: 'export plan.json --to sglang --model ./model --out experts.json', does: 'placement for SGLang' },
    {
      command: 'export --to sglang --check experts.json --model ./model',
      does: 'check a file before a server gets it',
    },
  ],
  run,
};

async function run({ flags, console, signal }: VerbContext): Promise<ExitStatus> {
  const exporter = exporterNamed(flags);
  const path = flags.optional('plan');
  const checked = flags.optional('check');
  if (path === undefined && checked === undefined)
    throw usageError('USAGE_MISSING_ARGUMENT', 'PLAN is missing', { hint: 'name a plan, or a file with --check' });
  const model = readExportModel(flags.optional('model') ?? demoDirectory, denseLayers(flags));
  const plan = path === undefined ? undefined : readPlan(path);
  const ranks = flags.has('ranks') ? flags.integer('ranks', { minimum: 1, maximum: 65_536 }) : undefined;
  const format = flags.has('format') ? flags.choice('format', [...exporter.formats, checkpointFormat]) : undefined;
  if (plan !== undefined) assertSameModel(flags, plan, console.log);
  if (checked !== undefined) {
    if (format === checkpointFormat)
      throw usageError('USAGE_BAD_VALUE', '--check reads files, not checkpoints', {
        hint: 'give --format of the file',
      });
    const report = checkExport(exporter, checked, { model, ranks, format, plan });
    console.out(flags.boolean('json') ? renderJson(report) : renderCheck(report, exporter));
    return ExitStatus.done;
  }
  const renumbers = format === checkpointFormat;
  const out = readOutputPath(flags) ?? defaultOut(path!, exporter, renumbers);
  if (!renumbers && !out.endsWith(exporter.extension)) {
    throw usageError('USAGE_BAD_VALUE', `--out: ${exporter.title} wants a name that ends in ${exporter.extension}`, {
      hint: 'it tells the form of a file by its name',
    });
  }
  const exported = flags.boolean('drop-copies') ? withoutCopies(plan!) : plan!;
  const popularity = await popularityOf(flags, exported);
  const report = await exportPlan(exporter, exported, {
    model,
    modelName: flags.optional('model') ?? demoDirectory,
    ranks: ranks ?? exported.devices,
    backend: backendNamed(flags, exporter),
    attention: flags.has('attention') ? flags.choice<Attention>('attention', attentions) : exporter.attention[0]!,
    format: format ?? exporter.formats[0]!,
    out,
    allowNoGain: flags.boolean('allow-no-gain'),
    signal,
    onProgress: (bytes, total) => console.progress(`copying: ${Math.floor((100 * bytes) / total)} % of ${total} bytes`),
    ...(popularity === undefined ? {} : { popularity }),
  });
  console.out(flags.boolean('json') ? renderJson(report) : renderExport(report, exporter));
  return ExitStatus.done;
}

function exporterNamed(flags: Flags): EngineExporter {
  const name = flags.choice('to', engines);
  return exporters.find((exporter) => exporter.name === name)!;
}

function backendNamed(flags: Flags, { title, backends }: EngineExporter): Backend {
  if (!flags.has('backend')) return backends[0]!;
  const name = flags.string('backend');
  const found = backends.find((backend) => backend.name === name);
  if (found !== undefined) return found;
  throw usageError('USAGE_BAD_VALUE', `--backend: ${title} has no ${JSON.stringify(name)} here`, {
    hint: suggestion(
      name,
      backends.map((backend) => backend.name),
    ),
  });
}

function denseLayers(flags: Flags): number[] | undefined {
  if (!flags.has('dense-layers')) return undefined;
  const text = flags.string('dense-layers');
  if (text === '-') return [];
  const layers = text.split(',').map((word) => (/^\s*\d+\s*$/.test(word) ? Number(word) : -1));
  if (!layers.includes(-1)) return layers;
  throw usageError('USAGE_BAD_VALUE', `--dense-layers: ${JSON.stringify(text)} is not a list of layers such as 0,1,2`, {
    hint: 'give - when there are none',
  });
}

/** Refuses a checkpoint that is not the plan's; where it cannot be opened here, only its shape is compared. */
function assertSameModel(flags: Flags, plan: Plan, note: (line: string) => void): void {
  const directory = flags.optional('model') ?? demoDirectory;
  let found: string;
  try {
    const checkpoint = openCheckpoint(directory.endsWith('config.json') ? dirname(directory) : directory);
    found = fingerprint(checkpoint);
    checkpoint.close();
  } catch (error) {
    if (!(error instanceof SmoeError)) throw error;
    note(`only the shape of the model was compared with the plan: ${error.message}`);
    return;
  }
  if (found === plan.modelFingerprint) return;
  if (!/^[0-9a-f]{16}$/.test(plan.modelFingerprint)) {
    note(`the plan is for a model called ${plan.modelFingerprint}: only the shape was compared`);
    return;
  }
  throw new SmoeError('PLAN_OTHER_MODEL', `the plan is for model ${plan.modelFingerprint}, ${directory} is ${found}`, {
    hint: 'name the model the plan is for with --model',
  });
}

function withoutCopies({ promise: _promise, ...plan }: Plan): Plan {
  return { ...plan, replicas: plan.replicas.map((ofLayer) => ofLayer.map(() => [])), promise: undefined };
}

/** [L][N] uses in the trace named, which must be of the plan's model. */
async function popularityOf(flags: Flags, plan: Plan): Promise<Float64Array | undefined> {
  if (!flags.has('trace')) return undefined;
  const path = flags.string('trace');
  const trace: RoutingTrace = await readTrace(path, { weights: false });
  const { layers, experts, topK } = trace.model;
  if (layers !== plan.layers || experts !== plan.experts || topK !== plan.topK) {
    throw usageError('TRACE_OTHER_MODEL', `--trace: ${path} has ${layers} layers of ${experts} experts, top ${topK}`, {
      hint: 'name a trace of the model the plan is for',
    });
  }
  const uses = new Float64Array(layers * experts);
  for (let at = 0; at < trace.length * layers * topK; at++) {
    uses[(Math.floor(at / topK) % layers) * experts + trace.experts[at]!]!++;
  }
  return uses;
}

function defaultOut(plan: string, { name, extension }: EngineExporter, renumbers: boolean): string {
  return `${plan.replace(/\.json$/, '')}.${renumbers ? checkpointFormat : `${name}${extension}`}`;
}
