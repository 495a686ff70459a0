import { type TokenPredictability, tokenPredictability, transitionAccuracy } from './predictability.ts';
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
  /** [N] routed pairs / mean, per expert. */
  load: number[];
  /** Share of the experts that together serve half of the routed pairs. */
  shareServingHalf: number;
  /** By token id; undefined when token ids are unknown. */
  byToken: TokenPredictability | undefined;
  /** [lookback - 1] share of the experts predicted right from those of 1, 2, 3 layers before; NaN when it cannot be measured. */
  byTransition: number[];
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
  const middle = middleRow(trace);
  const halves = model.vocabularySize > 0 ? groupHalves(trace, middle) : undefined;
  const layers: LayerStatistics[] = [];
  for (let layer = 0; layer < model.layers; layer++) {
    const mean = (trace.length * model.topK) / model.experts;
    const load = Array.from(expertLoad(trace, layer), (pairs) => pairs / mean);
    layers.push({
      loadMaximumOverMean: load.reduce((most, share) => Math.max(most, share), 0),
      unusedExperts: load.reduce((unused, share) => unused + (share === 0 ? 1 : 0), 0),
      load,
      shareServingHalf: shareServingHalf(load),
      byToken: halves === undefined ? undefined : tokenPredictability(trace, layer, halves.fit, halves.test),
      byTransition: transitionAccuracy(trace, layer, middle),
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

function shareServingHalf(load: number[]): number {
  const half = load.length / 2;
  let served = 0;
  let experts = 0;
  for (const share of load.toSorted((a, b) => b - a)) {
    if (served >= half) break;
    served += share;
    experts++;
  }
  return experts / load.length;
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

/** First row of the second half of the requests. */
function middleRow(trace: RoutingTrace): number {
  const boundary = Math.ceil(requestCount(trace) / 2);
  let middle = 0;
  while (middle < trace.length && trace.request[middle]! < boundary) middle++;
  return middle;
}

function groupHalves(trace: RoutingTrace, middle: number): Halves {
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
