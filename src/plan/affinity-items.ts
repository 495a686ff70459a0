import type { RoutingTrace } from '../trace/routing-trace.ts';

/** Token ids or requests as the paper's problem sees them: how often each met each expert of a layer. I = items, N = experts. */
export interface AffinityItems {
  count: number;
  experts: number;
  /** [I] token occurrences */
  tokens: Float64Array;
  /** [I][N] routed pairs */
  pairs: Float32Array;
}

/** One item per request. */
export function requestItems(trace: RoutingTrace, layer: number): AffinityItems {
  return collectItems(trace, layer, trace.request, trace.labels.length);
}

/** One item per token id that occurs, or per request where ids are unknown. */
export function tokenItems(trace: RoutingTrace, layer: number): AffinityItems {
  if (trace.model.vocabularySize === 0 || trace.token.some((id) => id < 0)) return requestItems(trace, layer);
  const number = new Int32Array(trace.model.vocabularySize).fill(-1);
  let count = 0;
  const item = trace.token.map((id) => {
    if (number[id]! < 0) number[id] = count++;
    return number[id]!;
  });
  return collectItems(trace, layer, item, count);
}

/** @param item [n] */
function collectItems(trace: RoutingTrace, layer: number, item: Int32Array, count: number): AffinityItems {
  const { layers, topK, experts } = trace.model;
  const tokens = new Float64Array(count);
  const pairs = new Float32Array(count * experts);
  for (let row = 0; row < trace.length; row++) {
    tokens[item[row]!]!++;
    const from = (row * layers + layer) * topK;
    for (let i = 0; i < topK; i++) pairs[item[row]! * experts + trace.experts[from + i]!]!++;
  }
  return { count, experts, tokens, pairs };
}

/** [I][P] routed pairs of each item on each device. */
export function devicePairs(
  { count, experts, pairs }: AffinityItems,
  owner: ArrayLike<number>,
  devices: number,
): Float64Array {
  const sums = new Float64Array(count * devices);
  for (let item = 0, at = 0; item < count; item++) {
    for (let expert = 0; expert < experts; expert++, at++) sums[item * devices + owner[expert]!]! += pairs[at]!;
  }
  return sums;
}

/**
 * The paper's objective (docs/method.md, the paper's problem), both parts as shares: theta x how far items' tokens are from equal slices
 * + (1 - theta) x share of routed pairs that leave their item's device.
 *
 * @param sums what `devicePairs` returned
 * @param home [I]
 */
export function paperCost(
  items: AffinityItems,
  sums: Float64Array,
  home: ArrayLike<number>,
  devices: number,
  theta: number,
): number {
  const slices = new Float64Array(devices);
  let all = 0;
  let local = 0;
  let tokens = 0;
  for (let item = 0; item < items.count; item++) {
    slices[home[item]!]! += items.tokens[item]!;
    tokens += items.tokens[item]!;
    for (let device = 0; device < devices; device++) {
      const pairs = sums[item * devices + device]!;
      all += pairs;
      if (device === home[item]) local += pairs;
    }
  }
  const uneven = slices.reduce((sum, slice) => sum + Math.abs(slice - tokens / devices), 0) / Math.max(1, tokens);
  return theta * uneven + (1 - theta) * (1 - local / Math.max(1, all));
}
