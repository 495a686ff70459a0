import { existsSync } from 'node:fs';
import { ExitStatus, SmoeError } from '../errors.ts';
import { movedExperts as countMoved } from '../plan/diff.ts';
import { evaluatePlacement } from '../plan/evaluate.ts';
import type { Plan } from '../plan/plan.ts';
import { writePlan } from '../plan/plan-file.ts';
import { countConfidences, type TableReliability, tableReliability } from '../plan/reliability.ts';
import { reliabilityFigure } from '../plan/reliability-figure.ts';
import { solvePlan } from '../plan/solve.ts';
import { defaultSolver, solvers } from '../plan/solvers/index.ts';
import { readTrace } from '../trace/parquet.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { requestCount, splitRequests } from '../trace/split.ts';
import { usageError } from './arguments.ts';
import { figureArgs, figureWriter } from './figure-args.ts';
import type { Flags } from './flags.ts';
import { renderJson } from './json.ts';
import { demoDirectory, type ModelFacts, readEmbedding, readModel } from './model-directory.ts';
import { placementArgs, readPlacement } from './plan-options.ts';
import { movedExperts, renderPlanReport, type PlanReport, type SolverReport } from './plan-report.ts';
import { jsonArgs, modelArgs, readOutputPath, seedArgs } from './shared-args.ts';
import type { Verb, VerbContext } from './verb.ts';

const solverNames = Object.keys(solvers);

export const planVerb: Verb = {
  name: 'plan',
  summary: 'Decide from a routing trace which device owns which experts, and what that would save',
  args: {
    trace: { type: 'positional', required: true, description: 'Trace to solve from (.parquet)' },
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
    ...placementArgs,
    model: {
      ...modelArgs.model!,
      description:
        "Directory of the trace's model. Its embeddings give token ids that the trace lacks their nearest neighbour's tables; its sizes " +
        'make the memory of a --cluster count. Found by itself for the shipped model',
    },
    ...figureArgs,
    ...seedArgs,
    ...jsonArgs,
  },
  examples: [
    { command: 'plan routing.parquet --devices 8 --out plan.json', does: 'solve and keep a plan for eight devices' },
    { command: 'plan routing.parquet --compare', does: 'all solvers, measured on held-out requests' },
    {
      command: 'plan routing.parquet --cluster infiniband-2x8 --replicas 25%',
      does: 'two nodes of eight devices, with spare memory for copies',
    },
    {
      command: 'plan new.parquet --start plan.json --out next.json',
      does: 'improve on a plan in force, moving few experts',
    },
  ],
  run: plan,
};

async function plan({ flags, console, signal }: VerbContext): Promise<ExitStatus> {
  const chosen = flags.choice('solver', solverNames);
  const share = flags.number('profile-share', { minimum: 0.01, maximum: 0.99 });
  const out = readOutputPath(flags);
  const writeFigure = figureWriter(flags, console);

  const trace = await readTrace(flags.string('trace'), { weights: wantsWeights(flags, chosen) });
  if (writeFigure !== undefined && trace.model.vocabularySize === 0) throw noTables(chosen);
  const model = modelOf(flags, trace);
  const { options, notes } = readPlacement(flags, trace, model);
  const { profile, evaluation } = await profileAndEvaluation(flags, trace, share);
  const embedding = model === undefined ? undefined : readEmbedding(model.directory);
  for (const note of notes) console.log(`note: ${note}`);
  const compares = flags.boolean('compare');
  const reports: SolverReport[] = [];
  const failures: string[] = [];
  for (const solver of compares ? solverNames : [chosen]) {
    const started = performance.now();
    let solved: Plan;
    try {
      solved = await solvePlan(profile, {
        ...options,
        solver,
        signal,
        ...(embedding === undefined ? {} : { embedding }),
        onProgress: (done, layers) => console.progress(`${solver}: layer ${done} of ${layers}`),
      });
    } catch (error) {
      // A published method that cannot do what is asked for leaves the others to compare.
      if (!compares || solver === chosen || !(error instanceof SmoeError) || error.code !== 'PLAN_INFEASIBLE')
        throw error;
      failures.push(error.message);
      continue;
    }
    const seconds = (performance.now() - started) / 1000;
    reports.push({
      solver,
      seconds,
      peakMemoryMb: process.resourceUsage().maxRSS / 1024,
      ...evaluatePlacement(solved, evaluation),
      movedExperts:
        options.start === undefined ? movedExperts(solved) : countMoved(options.start.expertOwner, solved.expertOwner),
      reliability: reliabilityOf(solved, evaluation),
      notes: solved.notes ?? [],
    });
    if (solver !== chosen) continue;
    if (out !== undefined) {
      writePlan(out, solved);
      console.log(`${out}: written`);
    }
    if (writeFigure !== undefined)
      writeFigure(reliabilityFigure(requireReliability(reports.at(-1)!), evaluation.source));
  }
  console.progress(undefined);
  const report: PlanReport = {
    trace: flags.string('trace'),
    evaluation: flags.optional('evaluate') ?? `${requestCount(evaluation)} held-out requests`,
    devices: options.devices,
    replicasPerDevice: options.replicasPerDevice ?? 0,
    profileTokens: profile.length,
    evaluationTokens: evaluation.length,
    solvers: reports,
    notes: [...notes, ...failures],
  };
  console.out(flags.boolean('json') ? renderJson(report) : renderPlanReport(report, console.style));
  return ExitStatus.done;
}

/** Only exflow looks at routing weights, to tell a token's first expert. */
function wantsWeights(flags: Flags, solver: string): boolean {
  return solver === 'exflow' || flags.boolean('compare');
}

/** How often the tables' confidences come true on requests that neither solver nor tables have seen; null without tables. */
function reliabilityOf({ prediction, expertOwner, devices }: Plan, evaluation: RoutingTrace): TableReliability | null {
  if (prediction === undefined) return null;
  return tableReliability(countConfidences(prediction, evaluation, expertOwner, devices));
}

function requireReliability({ reliability, solver }: SolverReport): TableReliability {
  if (reliability === null) throw noTables(solver);
  return reliability;
}

function noTables(solver: string): SmoeError {
  return usageError(
    'USAGE_BAD_VALUE',
    `--figure draws how reliable prediction tables are, and the plan of ${solver} has none`,
    { hint: 'solve from a trace with token ids, for fewer devices' },
  );
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

/** The model named, or the shipped one when the trace is its own; else none. */
function modelOf(flags: Flags, trace: RoutingTrace): ModelFacts | undefined {
  if (!flags.has('model') && !existsSync(demoDirectory)) return undefined;
  const model = readModel(flags);
  if (model.fingerprint === trace.model.fingerprint) return model;
  if (!flags.has('model')) return undefined;
  throw usageError(
    'TRACE_OTHER_MODEL',
    `--model: the trace is of model ${trace.model.fingerprint}, not ${model.fingerprint}`,
    {
      hint: 'name the model the trace was recorded from, or none',
    },
  );
}
