import { availableParallelism } from 'node:os';
import type { GenerationRequest, SessionOptions } from '../engine/api.ts';
import { openSession } from '../engine/session.ts';
import { TraceWriter } from '../trace/parquet.ts';
import type { ModelFacts } from './model-directory.ts';
import { contiguousPlan } from '../plan/contiguous-plan.ts';
import type { Transport } from './transport.ts';

/** Tokens recorded per run: bounds the memory of the raw record. */
const tokensPerRun = 65_536;

export interface RecordingOptions {
  model: ModelFacts;
  requests: GenerationRequest[];
  out: string;
  /** What the trace says of itself. */
  source: string;
  stepTokens: number;
  /** Threads of this process when not given. */
  transport?: Transport;
  /** As many as the transport's hosts call for, else as cores, when not given. */
  ranks?: number;
  /** 1 when not given. */
  threadsPerRank?: number;
  /** Keep routing weights; true when left out. */
  weights?: boolean;
  onProgress: (doneTokens: number, totalTokens: number) => void;
  signal: AbortSignal;
}

/** Runs the requests, attention data-parallel over this machine's cores, and writes their routing. Returns rows written. */
export async function recordRouting(options: RecordingOptions): Promise<number> {
  const { model, requests, stepTokens, transport, weights = true, onProgress, signal } = options;
  const ranks =
    options.ranks ??
    transport?.ranks ??
    Math.max(1, Math.min(availableParallelism(), model.config.experts, requests.length, 16));
  transport?.assertRanks(ranks);
  const longest = Math.max(...requests.map(positionsOf));
  const sessionOptions: SessionOptions = {
    modelDirectory: model.directory,
    layout: { dataParallel: ranks, tensorParallel: 1 },
    plan: contiguousPlan(model, ranks),
    ...(transport?.sessionOptions ?? { transport: 'threads' }),
    threadsPerRank: options.threadsPerRank ?? 1,
    maximumStepTokens: stepTokens,
    cachePositions: Math.max(2 * longest + 16, 2048),
  };
  const total = requests.reduce((sum, request) => sum + positionsOf(request), 0);
  let done = 0;
  let rows = 0;
  let firstRequest = 0;
  let writer: TraceWriter | undefined;
  const session = await openSession(sessionOptions);
  try {
    for (const part of partsOf(requests, tokensPerRun)) {
      const { trace } = await session.run({
        schedule: 'dedup',
        predictor: 'pregate',
        requests: part,
        logits: 'none',
        recordRouting: true,
        signal,
      });
      const kept = weights ? trace!.weights : undefined;
      writer ??= new TraceWriter(options.out, trace!.model, kept !== undefined);
      const offset = firstRequest;
      writer.append({ ...trace!, weights: kept, request: trace!.request.map((request) => request + offset) });
      firstRequest += part.length;
      rows += trace!.length;
      done += part.reduce((sum, request) => sum + positionsOf(request), 0);
      onProgress(done, total);
    }
    writer!.finish(
      options.source,
      requests.map(({ label }) => label),
    );
    return rows;
  } catch (error) {
    writer?.abandon();
    throw error;
  } finally {
    await session.close();
  }
}

/** Consecutive requests of at most `limit` positions together, at least one each. */
export function partsOf(requests: GenerationRequest[], limit: number): GenerationRequest[][] {
  const parts: GenerationRequest[][] = [];
  let size = Number.POSITIVE_INFINITY;
  for (const request of requests) {
    if (size + positionsOf(request) > limit) {
      parts.push([]);
      size = 0;
    }
    parts.at(-1)!.push(request);
    size += positionsOf(request);
  }
  return parts;
}

function positionsOf({ tokens, maxNewTokens }: GenerationRequest): number {
  return tokens.length + maxNewTokens;
}
