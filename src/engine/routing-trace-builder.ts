import type { ModelConfig } from '../model/config.ts';
import type { RoutingRecord } from '../schedule/routing-observer.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { GenerationRequest, RequestOutput } from './api.ts';

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
