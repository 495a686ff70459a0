import { existsSync } from 'node:fs';
import { ExitStatus, SmoeError } from '../errors.ts';
import { evaluatePlacement } from '../plan/evaluate.ts';
import type { EmbeddingTable } from '../plan/nearest-token.ts';
import { writePlan } from '../plan/plan-file.ts';
import { solvePlan } from '../plan/solve.ts';
import { defaultSolver, solvers } from '../plan/solvers/index.ts';
import { readTrace } from '../trace/parquet.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { requestCount, splitRequests } from '../trace/split.ts';
import { usageError } from './arguments.ts';
import type { Flags } from './flags.ts';
import { renderJson } from './json.ts';
import { demoDirectory, readEmbedding, readModel } from './model-directory.ts';
import { movedExperts, renderPlanReport, type PlanReport, type SolverReport } from './plan-report.ts';
import { jsonArgs, modelArgs, readOutputPath, seedArgs } from './shared-args.ts';
import type { Verb, VerbContext } from './verb.ts';

const solverNames = Object.keys(solvers);

export const planVerb: Verb = {
  name: 'plan',
  summary: 'Decide from a routing trace which device owns which experts, and what that would save',
  args: {
    trace: { type: 'positional', required: true, description: 'Trace to solve from (.parquet)' },
    devices: { type: 'string', valueHint: 'N', default: '4', description: 'Devices to spread the experts over' },
    solver: {
      type: 'string',
      valueHint: 'NAME',
      default: defaultSolver,
      description: `One of: ${solverNames.join(', ')}`,
    },
    compare: {
      type: 'boolean',
      description: 'Run every solver and show them side by side; --out keeps the one of --solver',
    },
    out: { type: 'string', valueHint: 'FILE', description: 'Plan to write (.json)' },
    evaluate: {
      type: 'string',
      valueHint: 'TRACE',
      description:
        'Measure on this trace and solve from all of the first; otherwise requests of the first are held out',
    },
    'profile-share': {
      type: 'string',
      valueHint: 'X',
      default: '0.2',
      description: 'Share of the requests to solve from when there is no --evaluate; the rest measures',
    },
    'max-imbalance': {
      type: 'string',
      valueHint: 'X',
      default: '1.1',
      description: 'Most routed pairs a device may have in a layer, as a multiple of the mean',
    },
    model: {
      ...modelArgs.model!,
      description:
        'Model directory, for its embeddings: token ids the trace lacks then take the tables of their nearest neighbour',
    },
    ...seedArgs,
    ...jsonArgs,
  },
  examples: [
    { command: 'plan routing.parquet --devices 8 --out plan.json', does: 'solve and keep a plan for eight devices' },
    { command: 'plan routing.parquet --compare', does: 'all solvers, measured on held-out requests' },
  ],
  run: plan,
};

async function plan({ flags, console }: VerbContext): Promise<ExitStatus> {
  const devices = flags.integer('devices', { minimum: 1, maximum: 256 });
  const chosen = flags.choice('solver', solverNames);
  const share = flags.number('profile-share', { minimum: 0.01, maximum: 0.99 });
  const maximumImbalance = flags.number('max-imbalance', { minimum: 1 });
  const seed = flags.integer('seed', { minimum: 0 });
  const out = readOutputPath(flags);

  const trace = await readTrace(flags.string('trace'));
  const { profile, evaluation } = await profileAndEvaluation(flags, trace, share);
  const embedding = embeddingFor(flags, trace);
  const reports: SolverReport[] = [];
  for (const solver of flags.boolean('compare') ? solverNames : [chosen]) {
    const started = performance.now();
    const solved = await solvePlan(profile, {
      devices,
      solver,
      seed,
      maximumImbalance,
      ...(embedding === undefined ? {} : { embedding }),
      onProgress: (done, layers) => console.progress(`${solver}: layer ${done} of ${layers}`),
    });
    const seconds = (performance.now() - started) / 1000;
    reports.push({
      solver,
      seconds,
      peakMemoryMb: process.resourceUsage().maxRSS / 1024,
      ...evaluatePlacement(solved, evaluation),
      movedExperts: movedExperts(solved),
      notes: solved.notes ?? [],
    });
    if (out !== undefined && solver === chosen) {
      writePlan(out, solved);
      console.log(`${out}: written`);
    }
  }
  console.progress(undefined);
  const report: PlanReport = {
    trace: flags.string('trace'),
    evaluation: flags.optional('evaluate') ?? `${requestCount(evaluation)} held-out requests`,
    devices,
    profileTokens: profile.length,
    evaluationTokens: evaluation.length,
    solvers: reports,
  };
  console.out(flags.boolean('json') ? renderJson(report) : renderPlanReport(report, console.style));
  return ExitStatus.done;
}

/** Never the same requests twice: what a plan was made from does not measure it. */
async function profileAndEvaluation(
  flags: Flags,
  trace: RoutingTrace,
  share: number,
): Promise<{ profile: RoutingTrace; evaluation: RoutingTrace }> {
  const path = flags.optional('evaluate');
  if (path === undefined) {
    const { first, second } = splitRequests(trace, share);
    if (first.length > 0 && second.length > 0) return { profile: first, evaluation: second };
    throw new SmoeError(
      'TRACE_TOO_SMALL',
      `${flags.string('trace')}: ${requestCount(trace)} requests cannot be parted at ${share}`,
      {
        hint: 'record more requests, or measure on another trace with --evaluate',
      },
    );
  }
  const evaluation = await readTrace(path);
  for (const field of ['fingerprint', 'layers', 'experts', 'topK'] as const) {
    if (evaluation.model[field] !== trace.model[field]) {
      throw usageError(
        'TRACE_OTHER_MODEL',
        `--evaluate: ${path} has ${field} ${evaluation.model[field]}, not ${trace.model[field]}`,
        {
          hint: 'both traces must be of one model',
        },
      );
    }
  }
  return { profile: trace, evaluation };
}

/** Of the model named; of the shipped one when the trace is its own; else none. */
function embeddingFor(flags: Flags, trace: RoutingTrace): EmbeddingTable | undefined {
  if (!flags.has('model') && !existsSync(demoDirectory)) return undefined;
  const model = readModel(flags);
  if (model.fingerprint === trace.model.fingerprint) return readEmbedding(model.directory);
  if (!flags.has('model')) return undefined;
  throw usageError(
    'TRACE_OTHER_MODEL',
    `--model: the trace is of model ${trace.model.fingerprint}, not ${model.fingerprint}`,
    {
      hint: 'name the model the trace was recorded from, or none',
    },
  );
}
