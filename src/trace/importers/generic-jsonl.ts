import { badRecord } from '../bad-record.ts';
import type { TraceSink, Where } from '../trace-sink.ts';
import { asArray, asInteger, asObject, flattenLayers, kindOf, parseJson } from './fields.ts';
import type { TraceImporter } from './importer.ts';
import { readLines } from './lines.ts';

/**
 * One line per token occurrence: `{"request", "position", "token", "phase"?, "experts": [[ids of layer 0], ...]}`, optionally with
 * `weights` of the same form and `label`. Lines of a request are consecutive and ascend by position (docs/trace-format.md).
 */
export const genericJsonl: TraceImporter = {
  name: 'jsonl',
  describes: 'one JSON line per token: request, position, token or null, experts per layer',
  recognises: ({ text }) => /^\s*\{/.test(text) && /"experts"\s*:\s*\[/.test(text),
  async read(path, sink) {
    const seen = new Set<string | number>();
    const experts: number[] = [];
    const weights: number[] = [];
    let current: string | number | undefined;
    for await (const { text, number } of readLines(path)) {
      const where = (): string => `${path}, line ${number}`;
      const record = asObject(where, parseJson(where, text));
      const { request } = record;
      if (typeof request !== 'string' && typeof request !== 'number') {
        throw badRecord(where(), `request: expected a name or number, found ${kindOf(request)}`);
      }
      if (request !== current) {
        if (seen.has(request)) {
          throw badRecord(
            where(),
            `request ${JSON.stringify(request)} goes on after another one`,
            'sort the lines by request and position',
          );
        }
        seen.add(request);
        current = request;
        sink.beginRequest(labelOf(where, record.label));
      }
      addRow(sink, where, record, experts, weights);
      if (sink.full) return;
    }
  },
};

function addRow(
  sink: TraceSink,
  where: Where,
  record: Record<string, unknown>,
  experts: number[],
  weights: number[],
): void {
  const layers = asArray(where, 'experts', record.experts);
  const topK = flattenLayers(where, 'experts', layers, experts);
  const hasWeights = record.weights !== undefined && record.weights !== null;
  if (hasWeights) {
    flattenLayers(where, 'weights', asArray(where, 'weights', record.weights), weights);
    if (weights.length !== experts.length)
      throw badRecord(where(), `weights: ${weights.length} for ${experts.length} experts`);
  }
  sink.shape(where, layers.length, topK, hasWeights);
  const token = record.token === null || record.token === undefined ? -1 : asInteger(where, 'token', record.token);
  const position = asInteger(where, 'position', record.position);
  sink.add(where, position, token, phaseOf(where, record.phase), experts, 0, hasWeights ? weights : undefined);
}

function labelOf(where: Where, label: unknown): string {
  if (label === undefined || label === null) return '';
  if (typeof label === 'string') return label;
  throw badRecord(where(), `label: expected text, found ${kindOf(label)}`);
}

function phaseOf(where: Where, phase: unknown): 0 | 1 {
  if (phase === undefined || phase === null || phase === 0 || phase === 'prefill') return 0;
  if (phase === 1 || phase === 'decode') return 1;
  throw badRecord(where(), `phase: expected "prefill" (0) or "decode" (1), found ${kindOf(phase)}`);
}
