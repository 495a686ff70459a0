import { ExitStatus, SmoeError } from '../../errors.ts';
import { noteCached } from '../importers/answers.ts';
import { asObject } from '../importers/fields.ts';
import { AnswerCollector, type RoutedAnswer } from '../importers/routed-experts.ts';
import { type KnownModel, type SinkReport, TraceSink, unknownModel } from '../trace-sink.ts';
import { defaultFetchLimits, type FetchLimits, JsonServer } from './bounded-fetch.ts';
import { findServer, type FoundServer, type LivePrompt } from './server-engine.ts';

export interface LiveRecordingOptions {
  url: string;
  /** One of `engineChoices`. */
  engine: string;
  prompts: LivePrompt[];
  out: string;
  source: string;
  maxNewTokens: number;
  /** Prompts under way at once. */
  concurrency: number;
  model: KnownModel;
  signal: AbortSignal;
  apiKey?: string | undefined;
  limits?: Partial<FetchLimits>;
  onProgress?: (donePrompts: number, prompts: number) => void;
}

export interface LiveReport extends SinkReport {
  engine: string;
  /** As the server names it. */
  serverModel: string;
}

/**
 * Sends prompts to a running SGLang or vLLM server and writes the routing it returns. Requests stand in the trace in the order of
 * the prompts. Nothing is left behind when it fails or is interrupted.
 */
export async function recordFromServer(options: LiveRecordingOptions): Promise<LiveReport> {
  const { prompts, out, concurrency, onProgress } = options;
  const server = new JsonServer(options.url, { ...defaultFetchLimits, ...options.limits }, options.apiKey);
  // Ends what is under way when one prompt fails.
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  let sink: TraceSink | undefined;
  const underWay: Promise<RoutedAnswer[]>[] = [];
  let asked = 0;
  const askNext = (found: FoundServer): void => {
    const answer = askOne(server, found, prompts[asked]!, asked, options, signal);
    // Awaited below in order; until then a failure must not count as unhandled.
    answer.catch(() => {});
    underWay.push(answer);
    asked++;
  };
  try {
    const found = await findServer(server, options.engine, signal);
    const fingerprint =
      options.model.fingerprint === unknownModel.fingerprint ? found.model : options.model.fingerprint;
    sink = new TraceSink(out, { ...options.model, fingerprint });
    const collector = new AnswerCollector(sink);
    while (asked < Math.min(concurrency, prompts.length)) askNext(found);
    for (let done = 0; done < prompts.length; done++) {
      const answers = await underWay.shift()!;
      if (asked < prompts.length) askNext(found);
      for (const answer of answers)
        collector.add(() => `${server.base}, prompt ${done + 1}`, { ...answer, label: prompts[done]!.label });
      onProgress?.(done + 1, prompts.length);
    }
    noteCached(sink, collector);
    return { engine: found.engine.name, serverModel: found.model, ...sink.finish(options.source) };
  } catch (error) {
    failed.abort();
    sink?.abandon();
    if (!options.signal.aborted) throw error;
    throw new SmoeError('INTERRUPTED', 'interrupted', { exitStatus: ExitStatus.interrupted, cause: error });
  }
}

async function askOne(
  server: JsonServer,
  { engine, model }: FoundServer,
  prompt: LivePrompt,
  index: number,
  { maxNewTokens, model: known }: LiveRecordingOptions,
  signal: AbortSignal,
): Promise<RoutedAnswer[]> {
  const where = (): string => `${server.base}${engine.path}, prompt ${index + 1}`;
  const { status, json, text } = await server.ask(engine.path, engine.body(prompt, model, maxNewTokens), signal);
  if (status !== 200 || json === undefined) {
    throw new SmoeError(
      'TRACE_SERVER',
      `${where()}: status ${status}: ${text.slice(0, 300).trim() || 'an empty answer'}`,
      {
        hint: status === 401 || status === 403 ? 'give --api-key' : "see the server's log",
      },
    );
  }
  try {
    return engine.parse(where, asObject(where, json), { topK: known.topK });
  } catch (error) {
    if (!(error instanceof SmoeError) || error.code !== 'TRACE_NO_ROUTING') throw error;
    throw new SmoeError(error.code, error.message, { hint: engine.launchHint, cause: error });
  }
}
