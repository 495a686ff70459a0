import { createHash } from 'node:crypto';
import type { ModelConfig } from '../model/config.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { GenerationRequest, LogitsKept, RequestOutput, RunReport } from './api.ts';
import type { RankReport } from './rank-protocol.ts';
import { vocabularyRanges } from './transformer.ts';

/**
 * Routing of a whole run, put together from what every rank saw. R = rows: every position of every request, request i's
 * starting at `firstRecordRow[i]`; rows never computed keep step -1.
 */
export interface RoutingRecord {
  /** [R][L][k] */
  experts: Uint16Array;
  /** [R][L][k] */
  weights: Float32Array;
  /** [R][L] rank the token lived on. */
  homes: Uint8Array;
  /** [R] engine step that computed the token. */
  steps: Int32Array;
}

export function mergeRouting(reports: RankReport[], rows: number, { layers, topK }: ModelConfig): RoutingRecord {
  const record: RoutingRecord = {
    experts: new Uint16Array(rows * layers * topK),
    weights: new Float32Array(rows * layers * topK),
    homes: new Uint8Array(rows * layers),
    steps: new Int32Array(rows).fill(-1),
  };
  reports.forEach((report, rank) => {
    for (const chunk of report.routing) {
      chunk.rows.forEach((row, i) => {
        const target = (row * layers + chunk.layer) * topK;
        record.experts.set(chunk.experts.subarray(i * topK, (i + 1) * topK), target);
        record.weights.set(chunk.weights.subarray(i * topK, (i + 1) * topK), target);
        record.homes[row * layers + chunk.layer] = rank;
        record.steps[row] = chunk.step;
      });
    }
  });
  return record;
}

/**
 * The rows of a record that were computed, as a trace: every prompt position and every generated position but the last
 * (whose token was never fed back).
 */
export function traceFromRecord(
  record: RoutingRecord,
  firstRecordRow: Int32Array,
  requests: GenerationRequest[],
  outputs: RequestOutput[],
  config: ModelConfig,
  fingerprint: string,
): RoutingTrace {
  const perToken = config.layers * config.topK;
  const lengths = requests.map((request, i) => request.tokens.length + outputs[i]!.tokens.length - 1);
  const length = lengths.reduce((sum, rows) => sum + rows, 0);
  const trace: RoutingTrace = {
    model: {
      fingerprint,
      layers: config.layers,
      experts: config.experts,
      topK: config.topK,
      vocabularySize: config.vocabularySize,
    },
    source: '',
    length,
    request: new Int32Array(length),
    position: new Int32Array(length),
    token: new Int32Array(length),
    phase: new Uint8Array(length),
    experts: new Uint16Array(length * perToken),
    weights: new Float32Array(length * perToken),
    labels: requests.map((request) => request.label),
  };
  let row = 0;
  requests.forEach((request, i) => {
    const prompt = request.tokens.length;
    for (let position = 0; position < lengths[i]!; position++, row++) {
      const source = (firstRecordRow[i]! + position) * perToken;
      trace.request[row] = i;
      trace.position[row] = position;
      trace.token[row] = position < prompt ? request.tokens[position]! : outputs[i]!.tokens[position - prompt]!;
      trace.phase[row] = position < prompt ? 0 : 1;
      trace.experts.set(record.experts.subarray(source, source + perToken), row * perToken);
      trace.weights!.set(record.weights.subarray(source, source + perToken), row * perToken);
    }
  });
  return trace;
}

/** Kept logits of all ranks in request and position order, with their hash. */
export function mergeLogits(
  reports: RankReport[],
  kept: LogitsKept,
  outputs: RequestOutput[],
  requests: GenerationRequest[],
  vocabularySize: number,
  tensorParallel: number,
): Pick<RunReport, 'logits' | 'logitsRows' | 'logitsSha256'> {
  if (kept === 'none') return { logits: undefined, logitsRows: [], logitsSha256: '' };
  const logitsRows: RunReport['logitsRows'] = [];
  const firstPosition = requests.map((request) => (kept === 'all' ? 0 : request.tokens.length - 1));
  const firstRow: number[] = [];
  outputs.forEach((output, request) => {
    firstRow[request] = logitsRows.length;
    const end = requests[request]!.tokens.length - 1 + output.tokens.length;
    for (let position = firstPosition[request]!; position < end; position++) logitsRows.push({ request, position });
  });
  const logits = new Float32Array(logitsRows.length * vocabularySize);
  const ranges = vocabularyRanges(vocabularySize, tensorParallel);
  reports.forEach((report, rank) => {
    const { first, end } = ranges[rank % tensorParallel]!;
    for (const chunk of report.logits) {
      chunk.requests.forEach((request, i) => {
        const row = firstRow[request]! + chunk.positions[i]! - firstPosition[request]!;
        logits.set(chunk.values.subarray(i * (end - first), (i + 1) * (end - first)), row * vocabularySize + first);
      });
    }
  });
  return { logits, logitsRows, logitsSha256: createHash('sha256').update(new Uint8Array(logits.buffer)).digest('hex') };
}

/** SHA-256 over all output token ids (int32 little-endian, requests in order, each ended by -1). */
export function hashOutputs(outputs: RequestOutput[]): string {
  const ids = Int32Array.from(outputs.flatMap((output) => [...output.tokens, -1]));
  return createHash('sha256').update(new Uint8Array(ids.buffer)).digest('hex');
}
