import { ExitStatus } from '../errors.ts';
import { loadTokenizer } from '../model/tokenizer.ts';
import { formatCount } from './format.ts';
import { renderJson } from './json.ts';
import { demoProfile, readModel, shortPath } from './model-directory.ts';
import { greedy, readDocuments, toRequests } from './prompts.ts';
import { recordRouting } from './recording.ts';
import {
  jsonArgs,
  modelArgs,
  mostRanks,
  readThreadsPerRank,
  threadArgs,
  readOutputPath,
  stepArgs,
} from './shared-args.ts';
import { liveArgs, recordLive } from './trace-record-live.ts';
import { transportArgs, withTransport, type Transport } from './transport.ts';
import type { Verb, VerbContext } from './verb.ts';

export const traceRecordVerb: Verb = {
  name: 'trace record',
  summary: 'Run text through a model, here or on a server, and keep which experts every token went to',
  args: {
    ...modelArgs,
    out: { type: 'string', valueHint: 'FILE', required: true, description: 'Trace to write (.parquet)' },
    text: {
      type: 'string',
      valueHint: 'FILE',
      description: 'Text (.jsonl or .txt); shipped profile texts when not given',
    },
    'prompt-tokens': {
      type: 'string',
      valueHint: 'N',
      default: '1024',
      description: 'Texts are cut to so many tokens; a server gets them whole',
    },
    'max-new-tokens': {
      type: 'string',
      valueHint: 'N',
      default: '1',
      description: 'Tokens generated after each text; the last is never routed, so 1 records the text alone',
    },
    'sets-only': {
      type: 'boolean',
      description: 'Leave out routing weights, most of the size; of all solvers only exflow looks at them',
    },
    ...stepArgs,
    ranks: {
      type: 'string',
      valueHint: 'N',
      description: 'Ranks that share the texts; as many as cores, or as the hosts call for, when not given',
    },
    ...transportArgs,
    ...threadArgs,
    ...liveArgs,
    ...jsonArgs,
  },
  examples: [
    { command: 'trace record --out routing.parquet', does: 'the shipped model on its profile texts' },
    { command: 'trace record ./model --text requests.jsonl --out routing.parquet', does: 'your own model and text' },
    {
      command: 'trace record --from http://127.0.0.1:30000 --model ./model --out routing.parquet',
      does: 'a running SGLang or vLLM server, started with --enable-return-routed-experts',
    },
  ],
  run(context) {
    if (context.flags.has('from')) return recordLive(context);
    return withTransport(context.flags, (transport) => record(context, transport));
  },
};

async function record({ flags, console, signal }: VerbContext, transport: Transport): Promise<ExitStatus> {
  const promptTokens = flags.integer('prompt-tokens', { minimum: 1 });
  const maxNewTokens = flags.integer('max-new-tokens', { minimum: 1 });
  const stepTokens = flags.integer('step-tokens', { minimum: 1 });
  const out = readOutputPath(flags)!;
  const text = flags.optional('text') ?? demoProfile;
  const model = readModel(flags);
  const requests = toRequests(readDocuments(text), loadTokenizer(model.directory), {
    promptTokens: Math.min(promptTokens, model.config.maximumPositions - maxNewTokens),
    maxNewTokens,
    sampling: greedy,
    ignoreEnd: true,
    stopStrings: [],
  });
  const started = performance.now();
  const tokens = await recordRouting({
    model,
    requests,
    out,
    source: shortPath(text),
    stepTokens,
    weights: !flags.boolean('sets-only'),
    transport,
    threadsPerRank: readThreadsPerRank(flags),
    ...(flags.has('ranks') ? { ranks: flags.integer('ranks', { minimum: 1, maximum: mostRanks }) } : {}),
    onProgress: (done, total) => console.progress(`recording: ${done} of ${total} tokens`),
    signal,
  });
  const seconds = (performance.now() - started) / 1000;
  console.progress(undefined);
  console.out(
    flags.boolean('json')
      ? renderJson({
          trace: out,
          model: model.name,
          fingerprint: model.fingerprint,
          requests: requests.length,
          tokens,
          seconds,
        })
      : `${out}: ${tokens} tokens of ${formatCount(requests.length, 'text')} in ${seconds.toFixed(1)} s\n`,
  );
  return ExitStatus.done;
}
