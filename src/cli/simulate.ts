import { existsSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type Cluster, deviceCount } from '../cluster/cluster.ts';
import { loadCluster } from '../cluster/cluster-file.ts';
import { clusterPresets } from '../cluster/presets.ts';
import type { Layout } from '../engine/api.ts';
import { ExitStatus, SmoeError } from '../errors.ts';
import { parseModelConfig } from '../model/families/index.ts';
import type { Plan } from '../plan/plan.ts';
import { readPlan } from '../plan/plan-file.ts';
import { solvePlan } from '../plan/solve.ts';
import { solvers } from '../plan/solvers/index.ts';
import { ChromeTrace } from '../simulate/chrome-trace.ts';
import { type ModelShape, modelShape } from '../simulate/model-shape.ts';
import { simulatedPredictorNames, type SimulatedPredictorName } from '../simulate/predictors.ts';
import { simulate, type SimulationOptions, type SimulationResult } from '../simulate/simulate.ts';
import { phaseChoices } from '../simulate/steps.ts';
import { assertSweepFits, parseSweep, type Sweep, sweepReport, sweptClusters } from '../simulate/sweep.ts';
import { sweepFigure } from '../simulate/sweep-figure.ts';
import { type SimulatedScheduleName, simulatedScheduleNames } from '../simulate/traffic.ts';
import { readTrace } from '../trace/parquet.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { splitRequests } from '../trace/split.ts';
import { usageError } from './arguments.ts';
import type { Console } from './console.ts';
import type { Flags } from './flags.ts';
import { renderJson } from './json.ts';
import { demoDirectory } from './model-directory.ts';
import { jsonArgs, layoutArgs, mostRanks, ranksOf, readLayout, seedArgs, stepArgs } from './shared-args.ts';
import { renderSimulation, type SimulationReport } from './simulate-text.ts';
import type { Verb, VerbContext } from './verb.ts';

const profileShare = 0.2;
const stepsOfTimeline = 8;

export const simulateVerb: Verb = {
  name: 'simulate',
  summary: 'Say what plans and schedules would save on a described cluster, by replaying a routing trace',
  args: {
    trace: { type: 'positional', required: true, description: 'Trace to replay (.parquet)' },
    cluster: {
      type: 'string',
      valueHint: 'FILE',
      default: 'ethernet-1g-4',
      description: `Cluster file (docs/cluster-format.md), or one of: ${Object.keys(clusterPresets).join(', ')}`,
    },
    plan: {
      type: 'string',
      valueHint: 'PLAN',
      default: 'contiguous,hypergraph',
      description: 'Plan files or solver names, comma-separated or repeated; solvers solve from --profile',
    },
    schedule: {
      type: 'string',
      valueHint: 'NAMES',
      default: 'deepspeed-moe,alltoallv,dedup,speculative',
      description: `Of: ${simulatedScheduleNames.join(', ')}`,
    },
    ...layoutArgs,
    ranks: {
      type: 'string',
      valueHint: 'N',
      description: 'Ranks = dp times tp; as many as the plan file has devices, or else the cluster, when not given',
    },
    dp: {
      type: 'string',
      valueHint: 'N',
      description: 'Data-parallel degree of attention (when not given, as small as the heads allow)',
    },
    predictor: {
      type: 'string',
      valueHint: 'NAME',
      description: `How \`speculative\` predicts devices: ${simulatedPredictorNames.join(', ')}; when not given, combined, or pregate where there are no token ids`,
    },
    'pregate-overlap': {
      type: 'string',
      valueHint: 'X',
      description:
        'Share of the true experts that a pregate is taken to name (0.8 when not given); a trace cannot run the router',
    },
    profile: {
      type: 'string',
      valueHint: 'TRACE',
      description: `Trace that plans are solved from; when not given, ${profileShare * 100} % of the requests are set aside for it`,
    },
    model: {
      type: 'string',
      valueHint: 'DIR',
      description: 'Directory with the config.json of the trace’s model; the shipped model when not given',
    },
    'activation-bytes': {
      type: 'string',
      valueHint: 'N',
      default: '4',
      description: 'Bytes of an element between ranks',
    },
    ...stepArgs,
    'decode-batch': {
      type: 'string',
      valueHint: 'N',
      default: '64',
      description: 'Most sequences under way at once per data-parallel group',
    },
    phases: {
      type: 'string',
      valueHint: 'NAME',
      default: 'recorded',
      description: 'Replay tokens as recorded, or all of them as prefill or as decode',
    },
    steps: { type: 'string', valueHint: 'N', description: 'Replay only so many steps' },
    overlap: {
      type: 'string',
      valueHint: 'on|off',
      default: 'off',
      description: 'Half a step computes while the other half communicates',
    },
    'compact-share': {
      type: 'string',
      valueHint: 'X',
      default: '1',
      description:
        'Bytes of a row that speculative sends, as a share of its plain bytes: 0.85 for compact rows of float32',
    },
    'one-shot-tokens': {
      type: 'string',
      valueHint: 'N',
      default: '0',
      description:
        'Steps of at most N tokens exchange rows twice a layer, in more bytes, under dedup and speculative when --dp is 1',
    },
    sweep: {
      type: 'string',
      valueHint: 'AXIS=...',
      description:
        'Repeat over ep=2,4,8 (ranks), bandwidth=0.1,1,10 (Gbit/s) or latency=10,100 (microseconds) of the slowest links',
    },
    figure: { type: 'string', valueHint: 'FILE', description: 'Draw the sweep (.svg)' },
    'chrome-trace': {
      type: 'string',
      valueHint: 'FILE',
      description: `Timeline of the first ${stepsOfTimeline} steps, for Perfetto (.json)`,
    },
    'per-layer': { type: 'boolean', description: 'Show the time of every layer, and its busiest link and rank' },
    'per-step': { type: 'boolean', description: 'The same of every step; with --json, put them in' },
    ...seedArgs,
    ...jsonArgs,
  },
  examples: [
    {
      command: 'simulate routing.parquet --cluster ethernet-10g-4',
      does: 'contiguous and solved placement under every schedule',
    },
    {
      command: 'simulate routing.parquet --plan a.json,b.json --cluster lab.yaml --dp 2 --tp 4',
      does: 'two plans on a cluster of your own',
    },
    {
      command: 'simulate routing.parquet --sweep bandwidth=0.1,1,10,100 --figure sweep.svg',
      does: 'up to which link speed it pays',
    },
    {
      command: 'simulate routing.parquet --plan plan.json --overlap on --chrome-trace steps.json',
      does: 'a timeline to open at https://ui.perfetto.dev',
    },
  ],
  run: runSimulate,
};

/** One (plan, schedule) pair; plans are made per number of ranks. */
interface Run {
  planWord: string;
  schedule: SimulatedScheduleName;
}

async function runSimulate({ flags, console }: VerbContext): Promise<ExitStatus> {
  const cluster = loadCluster(flags.string('cluster'));
  const schedules = flags.choices('schedule', simulatedScheduleNames);
  const planWords = flags.list('plan');
  const sweep = flags.has('sweep') ? parseSweep(flags.string('sweep')) : undefined;
  if (sweep !== undefined) assertSweepFits(sweep, cluster);
  if (flags.has('figure') && sweep === undefined) {
    throw usageError('USAGE_BAD_VALUE', '--figure draws a sweep', {
      hint: 'add --sweep, such as --sweep bandwidth=0.1,1,10',
    });
  }
  const setup = await readSetup(flags, console);
  const layout = simulatedLayout(flags, setup, cluster);
  const runs = planWords.flatMap((planWord) => schedules.map((schedule): Run => ({ planWord, schedule })));

  const chromeTrace = flags.has('chrome-trace') ? new ChromeTrace(ranksOf(layout), stepsOfTimeline) : undefined;
  const results: SimulationResult[] = [];
  const swept: (SimulationResult | null)[][] = [];
  for (const run of runs) {
    const name = `${planNameOf(run.planWord)}, ${run.schedule}`;
    console.progress(`replaying: ${name}`);
    const linkSweep = sweep !== undefined && sweep.axis !== 'ep' ? sweptClusters(cluster, sweep) : [];
    const timeline = chromeTrace === undefined ? {} : { onSegment: chromeTrace.addRun(name) };
    const options = { ...(await setup.optionsOf(run, layout)), clusters: [cluster, ...linkSweep], ...timeline };
    const [result, ...others] = simulate(options);
    results.push(result!);
    if (sweep !== undefined)
      swept.push(sweep.axis === 'ep' ? await sweepRanks(setup, run, layout, cluster, sweep) : others);
  }
  console.progress(undefined);
  const report = reportOf(flags, setup, layout, cluster, results);
  if (sweep !== undefined) report.sweep = sweepReport(sweep, swept, Math.max(0, schedules.indexOf('dedup')));
  if (report.sweep !== undefined && flags.has('figure')) {
    write(flags.string('figure'), sweepFigure(report.sweep, `${report.model} on ${cluster.name}`), console);
  }
  if (chromeTrace !== undefined) write(flags.string('chrome-trace'), chromeTrace.toJson(), console);
  const [perLayer, perStep] = [flags.boolean('per-layer'), flags.boolean('per-step')];
  const withoutSteps = results.map(({ stepTimes: _stepTimes, ...result }) => result);
  console.out(
    flags.boolean('json')
      ? renderJson(perStep ? report : { ...report, schedules: withoutSteps })
      : renderSimulation(report, { perLayer, perStep, style: console.style }),
  );
  return ExitStatus.done;
}

/** What all runs share, and the options of each. */
interface Setup {
  model: string;
  trace: RoutingTrace;
  shape: ModelShape;
  /** Devices of the first plan file; undefined when all plans are to be solved. */
  plannedDevices: number | undefined;
  optionsOf(run: Run, layout: Layout): Promise<Omit<SimulationOptions, 'clusters'>>;
}

async function readSetup(flags: Flags, console: Console): Promise<Setup> {
  const whole = await readTrace(flags.string('trace'), { weights: false });
  const planWords = flags.list('plan');
  const solves = planWords.some((word) => isSolver(word));
  const { profile, trace } = await profileAndReplay(flags, whole, solves);
  const { model, shape } = readShape(flags, trace);
  const seed = flags.integer('seed', { minimum: 0 });
  const overlap = flags.has('pregate-overlap')
    ? flags.number('pregate-overlap', { minimum: 0, maximum: 1 })
    : undefined;
  const maximumSteps = flags.has('steps') ? { maximumSteps: flags.integer('steps', { minimum: 1 }) } : {};
  const shared = {
    trace,
    shape,
    predictor: readPredictor(flags, trace, console),
    composition: {
      stepTokens: flags.integer('step-tokens', { minimum: 1, maximum: 1 << 20 }),
      decodeBatch: flags.integer('decode-batch', { minimum: 1 }),
      phases: flags.choice('phases', phaseChoices),
      ...maximumSteps,
    },
    overlap: flags.choice('overlap', ['on', 'off']) === 'on',
    compactShare: flags.number('compact-share', { minimum: 0.01, maximum: 1 }),
    oneShotTokens: flags.integer('one-shot-tokens', { minimum: 0 }),
    ...(overlap === undefined ? {} : { pregateOverlap: new Float64Array(shape.layers).fill(overlap) }),
  };
  const plans = new Map<string, Plan>();
  const planOf = async (word: string, devices: number): Promise<Plan> => {
    if (!isSolver(word)) return readPlan(word);
    return solvePlan(profile!, {
      ...{ devices, solver: word, seed },
      onProgress: (done, layers) => console.progress(`${word}, ${devices} devices: layer ${done} of ${layers}`),
    });
  };
  const planFile = planWords.find((word) => !isSolver(word));
  return {
    model,
    trace,
    shape,
    plannedDevices: planFile === undefined ? undefined : readPlan(planFile).devices,
    async optionsOf({ planWord, schedule }, layout) {
      const key = `${planWord} ${ranksOf(layout)}`;
      const plan = plans.get(key) ?? (await planOf(planWord, ranksOf(layout)));
      plans.set(key, plan);
      return { ...shared, plan, planName: planNameOf(planWord), schedule, layout };
    },
  };
}

/**
 * As given; ranks are those of the plan file, or else all devices of the cluster, and tensor-parallel groups as large as the heads
 * allow.
 */
function simulatedLayout(flags: Flags, { shape, plannedDevices }: Setup, cluster: Cluster): Layout {
  const all = Math.min(deviceCount(cluster), shape.experts, mostRanks);
  const given = readLayout(flags, plannedDevices ?? all);
  if (flags.has('dp') || flags.has('tp')) return given;
  const ranks = ranksOf(given);
  let dataParallel = 1;
  while (ranks % dataParallel !== 0 || shape.heads % (ranks / dataParallel) !== 0) dataParallel++;
  return { dataParallel, tensorParallel: ranks / dataParallel };
}

/** Without token ids there are no prediction tables to combine. */
function readPredictor(flags: Flags, { model }: RoutingTrace, console: Console): SimulatedPredictorName {
  if (flags.has('predictor')) return flags.choice('predictor', simulatedPredictorNames);
  if (model.vocabularySize > 0) return 'combined';
  console.log('token ids are unknown: devices are predicted by the pregate alone');
  return 'pregate';
}

/** A name that is both a file and a solver is taken as the solver. */
function isSolver(word: string): boolean {
  return Object.hasOwn(solvers, word);
}

function planNameOf(word: string): string {
  return isSolver(word) ? word : basename(word).replace(/\.json$/, '');
}

/** What plans are solved from is never what they are judged on. */
async function profileAndReplay(
  flags: Flags,
  whole: RoutingTrace,
  solves: boolean,
): Promise<{ profile: RoutingTrace | undefined; trace: RoutingTrace }> {
  if (!solves) return { profile: undefined, trace: whole };
  if (flags.has('profile'))
    return { profile: await readTrace(flags.string('profile'), { weights: false }), trace: whole };
  const { first, second } = splitRequests(whole, profileShare);
  if (first.length > 0 && second.length > 0) return { profile: first, trace: second };
  throw new SmoeError('TRACE_TOO_SMALL', `${flags.string('trace')}: too few requests to set some aside for solving`, {
    hint: 'give a trace to solve from with --profile, or plan files',
  });
}

function readShape(flags: Flags, { model }: RoutingTrace): { model: string; shape: ModelShape } {
  const directory = flags.optional('model') ?? demoDirectory;
  if (directory === demoDirectory && !existsSync(demoDirectory)) {
    throw usageError('USAGE_MISSING_FLAG', '--model is missing', {
      hint: 'name a directory with the model’s config.json',
    });
  }
  const { config } = parseModelConfig(directory);
  const differs = (['layers', 'experts', 'topK'] as const).find((field) => config[field] !== model[field]);
  if (differs !== undefined) {
    throw usageError(
      'SIMULATE_OTHER_MODEL',
      `${differs} is ${config[differs]} in ${directory}, ${model[differs]} in the trace`,
      { hint: 'name a directory with the config.json of the trace’s model with --model' },
    );
  }
  const activationBytes = flags.integer('activation-bytes', { minimum: 1, maximum: 8 });
  return { model: directory === demoDirectory ? 'demo' : directory, shape: modelShape(config, activationBytes) };
}

/** Over numbers of ranks: the data-parallel degree stays, as long as it divides them. */
async function sweepRanks(
  setup: Setup,
  run: Run,
  { dataParallel }: Layout,
  cluster: Cluster,
  { values }: Sweep,
): Promise<(SimulationResult | null)[]> {
  const results: (SimulationResult | null)[] = [];
  for (const ranks of values) {
    const groups = ranks % dataParallel === 0 ? dataParallel : 1;
    const layout = { dataParallel: groups, tensorParallel: ranks / groups };
    try {
      const [result] = simulate({ ...(await setup.optionsOf(run, layout)), clusters: [cluster] });
      results.push(result!);
    } catch (error) {
      // A plan file made for other numbers of devices, or heads that do not split, leave a gap.
      if (!(error instanceof SmoeError) || !['PLAN_LAYOUT', 'LAYOUT_UNSUPPORTED'].includes(error.code)) throw error;
      results.push(null);
    }
  }
  return results;
}

function reportOf(
  flags: Flags,
  { model, trace }: Setup,
  { dataParallel, tensorParallel }: Layout,
  cluster: Cluster,
  schedules: SimulationResult[],
): SimulationReport {
  const decoded = trace.phase.reduce((sum, phase) => sum + phase, 0);
  return {
    model,
    trace: flags.string('trace'),
    layout: { dp: dataParallel, tp: tensorParallel, ep: dataParallel * tensorParallel },
    transport: 'simulated',
    network: cluster.name,
    plan: flags.list('plan').map(planNameOf).join(', '),
    prompts: trace.labels.length,
    promptTokens: trace.length - decoded,
    generatedTokens: decoded,
    phases: flags.string('phases'),
    overlap: flags.string('overlap') === 'on',
    compactShare: flags.number('compact-share'),
    oneShotTokens: flags.integer('one-shot-tokens'),
    schedules,
  };
}

function write(path: string, content: string, console: Console): void {
  try {
    writeFileSync(path, content);
  } catch (cause) {
    throw new SmoeError('OUTPUT_WRITE', `${path}: cannot write: ${(cause as Error).message}`, { cause });
  }
  console.log(`${path}: written`);
}
