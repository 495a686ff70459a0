import { badRecord, badShape } from '../bad-record.ts';
import type { TraceSink } from '../trace-sink.ts';
import { asArray, asInteger, asObject, copyNumbers, kindOf, parseJson } from './fields.ts';
import type { TraceImporter } from './importer.ts';
import { readLines } from './lines.ts';

/** A request's records as they came in: layer by layer, tokens of several requests mixed. */
interface LoggedRequest {
  name: string;
  /** token_idx -> layer -> record */
  tokens: Map<number, Map<number, RouteRecord>>;
}

interface RouteRecord {
  line: number;
  experts: Uint16Array;
  weights: Float32Array | undefined;
}

/**
 * JSONL of the vLLM routing loggers: a `meta` line, then `{"type":"route","req_id","token_idx","layer","topk_ids","topk_weights"}`.
 * The order of the records is that of the computation, so all are held until the end. No token ids.
 */
export const vllmLogger: TraceImporter = {
  name: 'vllm-logger',
  describes: 'JSONL of the vLLM routing loggers: a meta line, then a line per token and layer; no token ids',
  recognises: ({ text }) => /^\s*\{/.test(text) && /"type"\s*:\s*"(meta|route)"/.test(text),
  async read(path, sink) {
    const requests = new Map<string, LoggedRequest>();
    const layers = new Set<number>();
    for await (const { text, number } of readLines(path)) {
      const where = (): string => `${path}, line ${number}`;
      const record = asObject(where, parseJson(where, text));
      if (record.type === 'meta') continue;
      if (record.type !== 'route')
        throw badRecord(where(), `type: expected "meta" or "route", found ${kindOf(record.type)}`);
      const { req_id: id } = record;
      if (typeof id !== 'string' && typeof id !== 'number') {
        throw badRecord(where(), `req_id: expected a name or number, found ${kindOf(id)}`);
      }
      const name = String(id);
      const request = requests.get(name) ?? { name, tokens: new Map() };
      requests.set(name, request);
      const tokenIndex = asInteger(where, 'token_idx', record.token_idx);
      const layer = asInteger(where, 'layer', record.layer, 0, 4095);
      layers.add(layer);
      const token = request.tokens.get(tokenIndex) ?? new Map<number, RouteRecord>();
      request.tokens.set(tokenIndex, token);
      const earlier = token.get(layer);
      if (earlier !== undefined) {
        throw badRecord(
          where(),
          `request ${name}, token ${tokenIndex}, layer ${layer} was routed in line ${earlier.line} already`,
        );
      }
      token.set(layer, routeOf(where, number, record));
    }
    addRequests(
      path,
      sink,
      [...requests.values()],
      [...layers].sort((a, b) => a - b),
    );
  },
};

function routeOf(where: () => string, line: number, record: Record<string, unknown>): RouteRecord {
  const ids: number[] = [];
  copyNumbers(where, 'topk_ids', record.topk_ids, ids, 0);
  for (const [i, id] of ids.entries()) asInteger(where, `topk_ids[${i}]`, id, 0, 65_535);
  if (record.topk_weights === undefined || record.topk_weights === null) {
    return { line, experts: Uint16Array.from(ids), weights: undefined };
  }
  const weights: number[] = [];
  copyNumbers(where, 'topk_weights', asArray(where, 'topk_weights', record.topk_weights), weights, 0);
  if (weights.length !== ids.length)
    throw badRecord(where(), `topk_weights: ${weights.length} for ${ids.length} experts`);
  return { line, experts: Uint16Array.from(ids), weights: Float32Array.from(weights) };
}

/** @param layers numbers of all layers that any token has, ascending */
function addRequests(path: string, sink: TraceSink, requests: LoggedRequest[], layers: number[]): void {
  const experts: number[] = [];
  const weights: number[] = [];
  for (const { name, tokens } of requests) {
    sink.beginRequest();
    for (const [position, token] of [...tokens].sort(([a], [b]) => a - b)) {
      const where = (): string => `${path}, request ${name}, token ${position}`;
      const records = layers.map((layer) => {
        const record = token.get(layer);
        if (record !== undefined) return record;
        throw badShape(
          where(),
          `layer ${layer} is missing`,
          'the recording is cut off, or its loggers did not cover all layers',
        );
      });
      const { length: topK } = records[0]!.experts;
      const hasWeights = records[0]!.weights !== undefined;
      for (const [i, record] of records.entries()) {
        if (record.experts.length !== topK || (record.weights !== undefined) !== hasWeights) {
          throw badShape(
            `${path}, line ${record.line}`,
            `topk_ids: ${record.experts.length} experts or weights unlike line ${records[0]!.line}`,
            'every layer needs the same k',
          );
        }
        for (let j = 0; j < topK; j++) {
          experts[i * topK + j] = record.experts[j]!;
          if (hasWeights) weights[i * topK + j] = record.weights![j]!;
        }
      }
      sink.shape(where, layers.length, topK, hasWeights);
      sink.add(where, position, -1, 0, experts, 0, hasWeights ? weights : undefined);
      if (sink.full) return;
    }
  }
}
