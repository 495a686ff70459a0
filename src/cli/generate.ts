import { readFileSync } from 'node:fs';
import { scheduleNames, type GenerationRequest } from '../engine/api.ts';
import { assertLayoutFits } from '../engine/partition.ts';
import { openSession } from '../engine/session.ts';
import { ExitStatus, SmoeError } from '../errors.ts';
import { loadTokenizer } from '../model/tokenizer.ts';
import { predictorNames } from '../plan/plan.ts';
import { usageError } from './arguments.ts';
import { contiguousPlan } from '../plan/contiguous-plan.ts';
import type { Flags } from './flags.ts';
import {
  assembleGenerateReport,
  renderTokenStatistics,
  tokenStatistics,
  type TokenStatistics,
} from './generate-report.ts';
import { renderJson } from './json.ts';
import { readModel, shortPath } from './model-directory.ts';
import { cacheDirectory, resolvePlan } from './plan-resolution.ts';
import { cachePositionsFor } from './prompts.ts';
import {
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
  seedArgs,
  readThreadsPerRank,
  stepArgs,
  threadArgs,
} from './shared-args.ts';
import { measuredPhases, renderPhases } from './phase-report.ts';
import { StopText } from './stop-text.ts';
import { readTimelinePath, timelineArgs, timelineSteps, writeTimeline } from './timeline-output.ts';
import { transportArgs, withTransport, type Transport } from './transport.ts';
import type { Verb, VerbContext } from './verb.ts';

export const generateVerb: Verb = {
  name: 'generate',
  summary: 'Complete a text, streaming it as it is made, on one rank or more',
  args: {
    ...modelArgs,
    prompt: { type: 'string', valueHint: 'TEXT', description: 'Text to complete; read from stdin when not given' },
    'prompt-file': { type: 'string', valueHint: 'FILE', description: 'Text to complete, from a file' },
    'max-new-tokens': { type: 'string', valueHint: 'N', default: '64', description: 'Most tokens to generate' },
    temperature: { type: 'string', valueHint: 'X', default: '0', description: '0 takes the likeliest token each time' },
    'top-p': {
      type: 'string',
      valueHint: 'X',
      default: '1',
      description: 'Sample from the likeliest tokens of this total probability',
    },
    'top-k': {
      type: 'string',
      valueHint: 'N',
      default: '0',
      description: 'Sample from the N likeliest tokens; 0 from all',
    },
    stop: {
      type: 'string',
      valueHint: 'TEXT',
      description: 'End before this text; several as a JSON array of strings',
    },
    'ignore-end': { type: 'boolean', description: "Go on after the model's end token" },
    ...seedArgs,
    ...layoutArgs,
    ...transportArgs,
    schedule: {
      type: 'string',
      valueHint: 'NAME',
      description: `How expert layers move tokens: ${scheduleList}; speculative on several ranks, dedup on one`,
    },
    ...predictorArgs,
    ...planArgs,
    ...stepArgs,
    ...overlapArgs,
    ...compactRowArgs,
    ...oneShotArgs,
    ...threadArgs,
    ...timelineArgs,
    stats: { type: 'boolean', description: 'Say per token, on stderr, where its time went and how many bytes moved' },
    ...jsonArgs,
  },
  examples: [
    { command: 'generate --prompt "The printf function"', does: 'the shipped model on one rank' },
    {
      command: 'generate --ranks 4 --stats --prompt "int main("',
      does: 'on four ranks, with compute against communication per token',
    },
    {
      command: 'generate ./model --temperature 0.8 --top-p 0.95 --stop "\\n\\n" < prompt.txt',
      does: 'another model, sampling',
    },
  ],
  run: (context) => withTransport(context.flags, (transport) => generate(context, transport)),
};

async function generate({ flags, console, signal }: VerbContext, transport: Transport): Promise<ExitStatus> {
  const layout = readLayout(flags, transport.ranks ?? 1);
  const ranks = ranksOf(layout);
  transport.assertRanks(ranks);
  const schedule = flags.has('schedule')
    ? flags.choice('schedule', scheduleNames)
    : ranks > 1
      ? 'speculative'
      : 'dedup';
  const predictor = flags.choice('predictor', predictorNames);
  const maxNewTokens = flags.integer('max-new-tokens', { minimum: 1 });
  const sampling = {
    temperature: flags.number('temperature', { minimum: 0 }),
    topP: flags.number('top-p', { minimum: 0, maximum: 1 }),
    topK: flags.integer('top-k', { minimum: 0 }),
    seed: flags.integer('seed', { minimum: 0 }),
  };
  const stopStrings = parseStops(flags.optional('stop'));
  const stepTokens = flags.integer('step-tokens', { minimum: 1 });
  const threadsPerRank = readThreadsPerRank(flags);
  const overlap = readOverlap(flags);
  const compactRows = readCompactRows(flags);
  const oneShotTokens = readOneShotTokens(flags);
  const timeline = readTimelinePath(flags);
  const json = flags.boolean('json');

  const model = readModel(flags);
  assertLayoutFits(model.config, layout);
  const tokenizer = loadTokenizer(model.directory);
  const tokens = tokenizer.encode(await readPrompt(flags));
  if (tokens.length === 0)
    throw usageError('PROMPT_EMPTY', 'the prompt is empty', { hint: 'give --prompt, --prompt-file or text on stdin' });
  const request: GenerationRequest = {
    tokens,
    maxNewTokens,
    sampling,
    stopStrings,
    ignoreEnd: flags.boolean('ignore-end'),
    label: '',
  };
  const question = {
    model,
    devices: ranks,
    explicit: flags.optional('plan'),
    profile: flags.optional('profile'),
    cacheDirectory: cacheDirectory(flags),
  };
  const resolved =
    schedule === 'speculative' || question.explicit !== undefined
      ? await resolvePlan(question, console, signal)
      : undefined;
  const session = await openSession({
    modelDirectory: model.directory,
    layout,
    plan: resolved?.plan ?? contiguousPlan(model, ranks),
    ...transport.sessionOptions,
    ...(resolved === undefined ? {} : { planFile: resolved.path }),
    threadsPerRank,
    maximumStepTokens: stepTokens,
    cachePositions: cachePositionsFor([request], 1),
  });
  try {
    const decoder = tokenizer.streamingDecoder({ continuesText: true });
    const visible = new StopText(stopStrings);
    let text = '';
    const show = (part: string): void => {
      text += part;
      if (!json) console.out(part);
    };
    const statistics: TokenStatistics[] = [];
    const run = await session.run({
      schedule,
      predictor,
      requests: [request],
      logits: 'none',
      recordRouting: false,
      ...(overlap === undefined ? {} : { overlap }),
      ...(compactRows === undefined ? {} : { compactRows }),
      ...(oneShotTokens === undefined ? {} : { oneShotTokens }),
      timelineSteps: timeline === undefined ? 0 : timelineSteps,
      onToken: (event) => {
        statistics.push(tokenStatistics(event));
        show(visible.push(decoder.push(event.token)));
      },
      signal,
    });
    show(visible.push(decoder.flush()) + visible.flush());
    const stats = flags.boolean('stats');
    if (json) {
      const plan = resolved === undefined ? 'contiguous' : shortPath(resolved.path);
      const facts = {
        model: model.name,
        layout,
        transport: transport.name,
        plan,
        schedule,
        predictor,
        text,
        tokens: stats ? statistics : undefined,
      };
      console.out(renderJson(assembleGenerateReport(facts, run)));
    } else {
      if (!text.endsWith('\n')) console.out('\n');
      if (stats) console.log(renderTokenStatistics(statistics).trimEnd());
    }
    if (timeline !== undefined) {
      writeTimeline(timeline, [{ name: schedule, ranks: run.timeline! }]);
      console.log(renderPhases([{ name: schedule, phases: measuredPhases([run]) }]).trimEnd());
      console.log(`${timeline}: written`);
    }
    return ExitStatus.done;
  } finally {
    await session.close();
  }
}

/** One stop string, or a JSON array of them. */
export function parseStops(flag: string | undefined): string[] {
  if (flag === undefined) return [];
  if (!flag.startsWith('[')) return [flag.replaceAll('\\n', '\n').replaceAll('\\t', '\t')];
  try {
    const stops: unknown = JSON.parse(flag);
    if (Array.isArray(stops) && stops.every((stop) => typeof stop === 'string' && stop !== ''))
      return stops as string[];
  } catch {
    // Falls through: not JSON is as bad as JSON of something else.
  }
  throw usageError('USAGE_BAD_VALUE', `--stop: ${flag} is not a JSON array of non-empty strings`, {
    hint: 'for example --stop \'["\\n\\n", "END"]\'',
  });
}

async function readPrompt(flags: Flags): Promise<string> {
  const [prompt, path] = [flags.optional('prompt'), flags.optional('prompt-file')];
  if (prompt !== undefined && path !== undefined) {
    throw usageError('USAGE_BAD_VALUE', '--prompt-file: --prompt is given too', { hint: 'give one of the two' });
  }
  if (prompt !== undefined) return prompt;
  if (path !== undefined) {
    try {
      return readFileSync(path, 'utf8');
    } catch (cause) {
      throw new SmoeError('TEXT_UNREADABLE', `--prompt-file: ${(cause as Error).message}`, {
        exitStatus: ExitStatus.usage,
        cause,
      });
    }
  }
  if (process.stdin.isTTY) {
    throw usageError('PROMPT_MISSING', 'there is no prompt', {
      hint: 'give --prompt TEXT, --prompt-file FILE, or text on stdin',
    });
  }
  process.stdin.setEncoding('utf8');
  let text = '';
  for await (const chunk of process.stdin) text += chunk as string;
  return text;
}
