import type { RoutingTrace } from './routing-trace.ts';

/** Number of requests in a trace. */
export function requestCount(trace: RoutingTrace): number {
  return trace.labels.length;
}

/** The rows of the requests marked in `keep` [requests], renumbered densely, as copies. */
export function selectRequests(trace: RoutingTrace, keep: Uint8Array, source: string = trace.source): RoutingTrace {
  const { model, weights } = trace;
  const width = model.layers * model.topK;
  let length = 0;
  for (let row = 0; row < trace.length; row++) length += keep[trace.request[row]!]!;
  const part: RoutingTrace = {
    model,
    source,
    length,
    request: new Int32Array(length),
    position: new Int32Array(length),
    token: new Int32Array(length),
    phase: new Uint8Array(length),
    experts: new Uint16Array(length * width),
    weights: weights === undefined ? undefined : new Float32Array(length * width),
    labels: trace.labels.filter((_, request) => keep[request] === 1),
  };
  let target = 0;
  let newRequest = -1;
  let lastRequest = -1;
  for (let row = 0; row < trace.length; row++) {
    const request = trace.request[row]!;
    if (keep[request] !== 1) continue;
    if (request !== lastRequest) newRequest++;
    lastRequest = request;
    part.request[target] = newRequest;
    part.position[target] = trace.position[row]!;
    part.token[target] = trace.token[row]!;
    part.phase[target] = trace.phase[row]!;
    const from = row * width;
    part.experts.set(trace.experts.subarray(from, from + width), target * width);
    if (weights !== undefined) part.weights!.set(weights.subarray(from, from + width), target * width);
    target++;
  }
  return part;
}

/**
 * Splits whole requests in two, `share` of them in `first`, evenly within each label and over the trace, so that both parts
 * see the same mix. A part may be empty when there are too few requests.
 */
export function splitRequests(trace: RoutingTrace, share: number): { first: RoutingTrace; second: RoutingTrace } {
  const keep = chooseShare(trace.labels, share);
  return {
    first: selectRequests(trace, keep),
    second: selectRequests(
      trace,
      keep.map((kept) => 1 - kept),
    ),
  };
}

/**
 * The same of a share of the requests, so that both parts together hold about `mostTokens` of a larger trace: what a search or a
 * measurement can use of it, without a second copy of the whole.
 */
export function splitSample(
  trace: RoutingTrace,
  share: number,
  mostTokens: number,
): { first: RoutingTrace; second: RoutingTrace } {
  if (trace.length <= mostTokens) return splitRequests(trace, share);
  const sampled = chooseShare(trace.labels, mostTokens / trace.length);
  const requests = Array.from(sampled.keys()).filter((request) => sampled[request] === 1);
  const inFirst = chooseShare(
    requests.map((request) => trace.labels[request]!),
    share,
  );
  const part = (wanted: number): RoutingTrace => {
    const keep = new Uint8Array(sampled.length);
    requests.forEach((request, i) => (keep[request] = inFirst[i] === wanted ? 1 : 0));
    return selectRequests(trace, keep);
  };
  return { first: part(1), second: part(0) };
}

/** [requests] 1 for the chosen share: walking requests ordered by label, one whenever the running total passes an integer. */
function chooseShare(labels: string[], share: number): Uint8Array {
  const order = labels.map((_, request) => request);
  order.sort((a, b) => (labels[a]! < labels[b]! ? -1 : labels[a]! > labels[b]! ? 1 : a - b));
  const keep = new Uint8Array(labels.length);
  order.forEach((request, i) => {
    keep[request] = Math.floor((i + 1) * share + 0.5) > Math.floor(i * share + 0.5) ? 1 : 0;
  });
  return keep;
}
