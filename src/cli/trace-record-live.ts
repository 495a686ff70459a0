import type { ArgsDef } from 'citty';
import { ExitStatus } from '../errors.ts';
import { defaultFetchLimits } from '../trace/live/bounded-fetch.ts';
import { recordFromServer } from '../trace/live/record.ts';
import { engineChoices } from '../trace/live/server-engine.ts';
import { usageError } from './arguments.ts';
import { foreignModelArgs, readForeignModel } from './foreign-model-args.ts';
import { formatCount } from './format.ts';
import { renderJson } from './json.ts';
import { demoProfile, shortPath } from './model-directory.ts';
import { readDocuments } from './prompts.ts';
import { readOutputPath } from './shared-args.ts';
import type { VerbContext } from './verb.ts';

/** Flags of `trace record --from URL`. */
export const liveArgs: ArgsDef = {
  from: {
    type: 'string',
    valueHint: 'URL',
    description:
      'Record from this SGLang or vLLM server, started with --enable-return-routed-experts, not from a model here',
  },
  engine: {
    type: 'string',
    valueHint: 'NAME',
    default: 'auto',
    description: `With --from, what the server is: ${engineChoices.join(', ')}`,
  },
  concurrency: { type: 'string', valueHint: 'N', default: '8', description: 'With --from: prompts under way at once' },
  timeout: {
    type: 'string',
    valueHint: 'SECONDS',
    default: String(defaultFetchLimits.timeoutMs / 1000),
    description: 'With --from: longest wait for an answer',
  },
  retries: {
    type: 'string',
    valueHint: 'N',
    default: String(defaultFetchLimits.retries),
    description: 'With --from: further attempts when the server does not answer or is busy',
  },
  'api-key': {
    type: 'string',
    valueHint: 'KEY',
    description: 'With --from: sent as bearer token; better set as SMOE_API_KEY',
  },
  ...foreignModelArgs,
};

/** Sends the texts as prompts and collects the routing that the server returns. --model only says what the server does not. */
export async function recordLive({ flags, console, signal }: VerbContext): Promise<ExitStatus> {
  const url = flags.string('from');
  const directory = flags.optional('directory') ?? flags.optional('model');
  if (!URL.canParse(url))
    throw usageError('USAGE_BAD_VALUE', `--from: ${url} is not an address`, { hint: 'such as http://127.0.0.1:30000' });
  const text = flags.optional('text') ?? demoProfile;
  const out = readOutputPath(flags)!;
  const started = performance.now();
  const report = await recordFromServer({
    url,
    engine: flags.choice('engine', engineChoices),
    prompts: readDocuments(text),
    out,
    source: `${shortPath(text)} by ${new URL(url).host}`,
    maxNewTokens: flags.integer('max-new-tokens', { minimum: 1 }),
    concurrency: flags.integer('concurrency', { minimum: 1, maximum: 1024 }),
    model: readForeignModel(flags, directory),
    signal,
    apiKey: flags.optional('api-key'),
    limits: {
      timeoutMs: 1000 * flags.number('timeout', { minimum: 0.1, maximum: 86_400 }),
      retries: flags.integer('retries', { minimum: 0, maximum: 100 }),
    },
    onProgress: (done, total) => console.progress(`recording: ${done} of ${total} prompts`),
  });
  console.progress(undefined);
  for (const note of report.notes) console.log(note);
  const seconds = (performance.now() - started) / 1000;
  console.out(
    flags.boolean('json')
      ? renderJson({ trace: out, ...report, seconds })
      : `${out}: ${report.rows} tokens of ${formatCount(report.requests, 'prompt')} from ${report.engine} in ${seconds.toFixed(1)} s\n`,
  );
  return ExitStatus.done;
}
