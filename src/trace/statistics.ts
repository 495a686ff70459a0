import type { RoutingTrace } from './routing-trace.ts';
import { requestCount } from './split.ts';

/** What `smoe trace show` prints; plain data. */
export interface TraceStatistics {
  tokens: number;
  requests: number;
  decodeTokens: number;
  /** Requests and tokens per label, in order of first appearance. */
  labels: { label: string; requests: number; tokens: number }[];
  model: RoutingTrace['model'];
  source: string;
  layers: LayerStatistics[];
  /** Undefined when token ids are unknown. */
  vocabulary: VocabularyCoverage | undefined;
}

export interface LayerStatistics {
  /** Busiest expert's routed pairs / mean. */
  loadMaximumOverMean: number;
  unusedExperts: number;
  /**
   * Share of the true experts among the k seen most with the token id, fitted on the first half of the requests, tested on the
   * tokens of the other half whose id the first half saw; NaN when it cannot be measured.
   */
  topExpertsRecall: number;
}

export interface VocabularyCoverage {
  distinctIds: number;
  /** Distinct ids / vocabulary. */
  share: number;
  /** Share of the second half's tokens whose id the first half saw. */
  heldOutTokensSeen: number;
}

export function traceStatistics(trace: RoutingTrace): TraceStatistics {
  const { model } = trace;
  const halves = model.vocabularySize > 0 ? groupHalves(trace) : undefined;
  const layers: LayerStatistics[] = [];
  for (let layer = 0; layer < model.layers; layer++) {
    const load = expertLoad(trace, layer);
    const mean = (trace.length * model.topK) / model.experts;
    layers.push({
      loadMaximumOverMean: load.reduce((most, pairs) => Math.max(most, pairs), 0) / mean,
      unusedExperts: load.reduce((unused, pairs) => unused + (pairs === 0 ? 1 : 0), 0),
      topExpertsRecall: halves === undefined ? Number.NaN : topExpertsRecall(trace, layer, halves),
    });
  }
  return {
    tokens: trace.length,
    requests: requestCount(trace),
    decodeTokens: trace.phase.reduce((sum, phase) => sum + phase, 0),
    labels: labelCounts(trace),
    model,
    source: trace.source,
    layers,
    vocabulary: halves === undefined ? undefined : coverage(trace, halves),
  };
}

/** [N] routed pairs per expert of one layer. */
export function expertLoad(trace: RoutingTrace, layer: number): Float64Array {
  const { layers, topK, experts } = trace.model;
  const load = new Float64Array(experts);
  for (let row = 0; row < trace.length; row++) {
    const base = (row * layers + layer) * topK;
    for (let i = 0; i < topK; i++) load[trace.experts[base + i]!]!++;
  }
  return load;
}

function labelCounts(trace: RoutingTrace): TraceStatistics['labels'] {
  const byLabel = new Map<string, { label: string; requests: number; tokens: number }>();
  for (const label of trace.labels) {
    const entry = byLabel.get(label) ?? { label, requests: 0, tokens: 0 };
    entry.requests++;
    byLabel.set(label, entry);
  }
  for (let row = 0; row < trace.length; row++) byLabel.get(trace.labels[trace.request[row]!]!)!.tokens++;
  return [...byLabel.values()];
}

/** Rows grouped by token id, for the first half of the requests (fit) and the rest (test). */
interface Halves {
  fit: RowsByToken;
  test: RowsByToken;
}

/** Rows with token id v: rows[starts[v] .. starts[v + 1]). */
export interface RowsByToken {
  /** [V + 1] */
  starts: Int32Array;
  rows: Int32Array;
}

/** Groups the rows in [from, to) by token id; rows of unknown id are left out. */
export function groupByToken(trace: RoutingTrace, from: number = 0, to: number = trace.length): RowsByToken {
  const starts = new Int32Array(trace.model.vocabularySize + 1);
  for (let row = from; row < to; row++) {
    if (trace.token[row]! >= 0) starts[trace.token[row]! + 1]!++;
  }
  for (let id = 0; id < trace.model.vocabularySize; id++) starts[id + 1]! += starts[id]!;
  const rows = new Int32Array(starts[trace.model.vocabularySize]!);
  const next = starts.slice();
  for (let row = from; row < to; row++) {
    if (trace.token[row]! >= 0) rows[next[trace.token[row]!]!++] = row;
  }
  return { starts, rows };
}

function groupHalves(trace: RoutingTrace): Halves {
  const boundary = Math.ceil(requestCount(trace) / 2);
  let middle = 0;
  while (middle < trace.length && trace.request[middle]! < boundary) middle++;
  return { fit: groupByToken(trace, 0, middle), test: groupByToken(trace, middle, trace.length) };
}

function coverage(trace: RoutingTrace, { fit, test }: Halves): VocabularyCoverage {
  const vocabularySize = trace.model.vocabularySize;
  let distinctIds = 0;
  let seen = 0;
  for (let id = 0; id < vocabularySize; id++) {
    const inFit = fit.starts[id + 1]! - fit.starts[id]!;
    const inTest = test.starts[id + 1]! - test.starts[id]!;
    if (inFit + inTest > 0) distinctIds++;
    if (inFit > 0) seen += inTest;
  }
  return { distinctIds, share: distinctIds / vocabularySize, heldOutTokensSeen: seen / test.rows.length };
}

function topExpertsRecall(trace: RoutingTrace, layer: number, { fit, test }: Halves): number {
  const { layers, topK, experts, vocabularySize } = trace.model;
  const counts = new Int32Array(experts);
  const chosen = new Uint8Array(experts);
  let hits = 0;
  let pairs = 0;
  for (let id = 0; id < vocabularySize; id++) {
    if (fit.starts[id] === fit.starts[id + 1] || test.starts[id] === test.starts[id + 1]) continue;
    counts.fill(0);
    for (let at = fit.starts[id]!; at < fit.starts[id + 1]!; at++) {
      const base = (fit.rows[at]! * layers + layer) * topK;
      for (let i = 0; i < topK; i++) counts[trace.experts[base + i]!]!++;
    }
    markLargest(counts, topK, chosen);
    for (let at = test.starts[id]!; at < test.starts[id + 1]!; at++) {
      const base = (test.rows[at]! * layers + layer) * topK;
      for (let i = 0; i < topK; i++) hits += chosen[trace.experts[base + i]!]!;
      pairs += topK;
    }
  }
  return hits / pairs;
}

/** Sets `chosen` to 1 at the `count` largest values, ties to the lower index. */
function markLargest(values: Int32Array, count: number, chosen: Uint8Array): void {
  chosen.fill(0);
  for (let pick = 0; pick < count; pick++) {
    let best = -1;
    for (let i = 0; i < values.length; i++) {
      if (chosen[i] === 0 && (best < 0 || values[i]! > values[best]!)) best = i;
    }
    chosen[best] = 1;
  }
}
