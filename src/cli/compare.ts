import { scheduleNames, type Layout } from '../engine/api.ts';
import { assertLayoutFits } from '../engine/partition.ts';
import { openSessions } from '../engine/session.ts';
import { ExitStatus } from '../errors.ts';
import { loadTokenizer } from '../model/tokenizer.ts';
import { predictorNames } from '../plan/plan.ts';
import { usageError } from './arguments.ts';
import { assembleReport, isLossless } from './compare-report.ts';
import { runComparison, type CompareSetup } from './compare-runs.ts';
import { renderComparison } from './compare-text.ts';
import { contiguousPlan } from '../plan/contiguous-plan.ts';
import { renderJson } from './json.ts';
import { describeLink, linkArgs, readLink } from './link-args.ts';
import { demoEvaluation, readModel, shortPath, type ModelFacts } from './model-directory.ts';
import { cacheDirectory, resolvePlan } from './plan-resolution.ts';
import { greedy, readDocuments, spreadOverLabels, toRequests } from './prompts.ts';
import {
  describeLayout,
  jsonArgs,
  layoutArgs,
  modelArgs,
  compactRowArgs,
  oneShotArgs,
  overlapArgs,
  planArgs,
  predictorArgs,
  ranksOf,
  readLayout,
  readCompactRows,
  readOneShotTokens,
  readOverlap,
  scheduleList,
  readThreadsPerRank,
  stepArgs,
  threadArgs,
} from './shared-args.ts';
import { renderPhases } from './phase-report.ts';
import { readTimelinePath, timelineArgs, timelineSteps, writeTimeline } from './timeline-output.ts';
import { transportArgs, withTransport, type Transport } from './transport.ts';
import type { Verb, VerbContext } from './verb.ts';

const defaultRanks = 4;

export const compareVerb: Verb = {
  name: 'compare',
  summary: 'Run the same prompts under several schedules, side by side, and check that none changes a bit',
  args: {
    ...modelArgs,
    ...layoutArgs,
    ...transportArgs,
    ...linkArgs,
    schedules: {
      type: 'string',
      valueHint: 'A,B',
      default: scheduleNames.join(','),
      description: `Which to run: ${scheduleList}`,
    },
    ...predictorArgs,
    ...planArgs,
    prompts: {
      type: 'string',
      valueHint: 'FILE',
      description: 'Prompts (.jsonl or .txt); shipped evaluation texts when not given',
    },
    'prompt-count': {
      type: 'string',
      valueHint: 'N',
      default: '12',
      description: 'How many prompts, spread over their domains',
    },
    'prompt-tokens': {
      type: 'string',
      valueHint: 'N',
      default: '192',
      description: 'Prompts are cut to so many tokens',
    },
    'max-new-tokens': { type: 'string', valueHint: 'N', default: '16', description: 'Tokens generated per prompt' },
    repeats: { type: 'string', valueHint: 'N', default: '3', description: 'Timed runs per schedule, taking turns' },
    logits: {
      type: 'string',
      valueHint: 'WHICH',
      default: 'sampled',
      description: 'Logits compared: sampled (those tokens are chosen from) or all (every position; much memory)',
    },
    ...stepArgs,
    ...overlapArgs,
    ...compactRowArgs,
    ...oneShotArgs,
    ...threadArgs,
    ...timelineArgs,
    ...jsonArgs,
  },
  examples: [
    { command: 'compare', does: 'the shipped model on four ranks' },
    {
      command: 'compare --transport mpi --hosts a,b,c,d',
      does: 'a rank on each of four machines (docs/mpi.md)',
    },
    {
      command: 'compare --link 100mbit,100us --ranks-per-node 2',
      does: 'two nodes of two ranks on an emulated slow link: threads that wait as if it were there',
    },
    { command: 'compare --dp 4 --tp 1 --json', does: 'attention data-parallel, as JSON' },
    {
      command: 'compare ./OLMoE-1B-7B --ranks 8 --schedules dedup,speculative',
      does: 'another model; its plan is solved once and cached',
    },
  ],
  run: (context) => withTransport(context.flags, (transport) => compare(context, transport)),
};

async function compare({ flags, console, signal }: VerbContext, transport: Transport): Promise<ExitStatus> {
  const layout = readLayout(flags, transport.ranks ?? defaultRanks);
  transport.assertRanks(ranksOf(layout));
  const link = readLink(flags, transport.name, ranksOf(layout));
  const schedules = flags.choices('schedules', scheduleNames);
  const predictor = flags.choice('predictor', predictorNames);
  const promptCount = flags.integer('prompt-count', { minimum: 1 });
  const shape = {
    promptTokens: flags.integer('prompt-tokens', { minimum: 1 }),
    maxNewTokens: flags.integer('max-new-tokens', { minimum: 1 }),
    sampling: greedy,
    ignoreEnd: true,
    stopStrings: [],
  };
  const repeats = flags.integer('repeats', { minimum: 1 });
  const logits = flags.choice('logits', ['sampled', 'all']);
  const stepTokens = flags.integer('step-tokens', { minimum: 1 });
  const overlap = readOverlap(flags);
  const compactRows = readCompactRows(flags);
  const oneShotTokens = readOneShotTokens(flags);
  const threadsPerRank = readThreadsPerRank(flags);
  const timeline = readTimelinePath(flags);

  const model = readModel(flags);
  assertComparable(layout, model);
  const requests = toRequests(
    spreadOverLabels(readDocuments(flags.optional('prompts') ?? demoEvaluation), promptCount),
    loadTokenizer(model.directory),
    shape,
  );
  const contiguous = contiguousPlan(model, ranksOf(layout));
  const resolved = schedules.includes('speculative')
    ? await resolvePlan(
        {
          model,
          devices: ranksOf(layout),
          explicit: flags.optional('plan'),
          profile: flags.optional('profile'),
          cacheDirectory: cacheDirectory(flags),
        },
        console,
        signal,
      )
    : undefined;
  const setup: CompareSetup = {
    modelDirectory: model.directory,
    layout,
    plans: { contiguous, planned: resolved?.plan ?? contiguous },
    schedules,
    predictor,
    requests,
    repeats,
    warmUpMs: 1500,
    stepTokens,
    logits,
    overlap,
    compactRows,
    oneShotTokens,
    threadsPerRank,
    timelineSteps: timeline === undefined ? 0 : timelineSteps,
    transport: { ...transport.sessionOptions, ...(link === undefined ? {} : { link }) },
    planFile: resolved?.path,
  };
  console.log(`comparing ${schedules.join(', ')} on ${describeLayout(layout)}, ${requests.length} prompts`);
  const runs = await runComparison(setup, openSessions, (what) => console.progress(what), signal);
  const report = assembleReport(
    {
      model: model.name,
      layout,
      transport: transport.name,
      network: link === undefined ? transport.network(runs.hosts) : describeLink(link),
      plan: resolved === undefined ? 'contiguous' : shortPath(resolved.path),
      repeats,
      overlap: runs.overlap,
      threadsPerRank,
      predictor,
      solvers: { contiguous: 'contiguous', planned: setup.plans.planned.solver },
    },
    runs,
  );
  console.progress(undefined);
  if (timeline !== undefined) {
    writeTimeline(
      timeline,
      runs.schedules.map(({ schedule, timeline: run }) => ({ name: schedule, ranks: run!.timeline! })),
    );
    console.log(renderPhases(report.schedules).trimEnd());
    console.log(`${timeline}: written`);
  }
  console.out(flags.boolean('json') ? renderJson(report) : renderComparison(report, console.style));
  return isLossless(report) ? ExitStatus.done : ExitStatus.failed;
}

/** Refuses at once what would fail after minutes of recording and solving. */
function assertComparable(layout: Layout, model: ModelFacts): void {
  assertLayoutFits(model.config, layout);
  const ranks = ranksOf(layout);
  if ((ranks & (ranks - 1)) === 0) return;
  throw usageError(
    'USAGE_BAD_VALUE',
    `--ranks: ${ranks} is no power of two, and the one-rank run needs that of a plan's devices`,
    {
      hint: 'use 1, 2, 4, 8, ... ranks',
    },
  );
}
