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
 */
export class PaperObjective {
  readonly #items: AffinityItems;
  readonly #theta: number;
  /** Routed pairs of item i that are not 0: [#starts[i] .. #starts[i + 1]). */
  readonly #starts: Int32Array;
  readonly #expert: Uint16Array;
  readonly #pairs: Float32Array;
  readonly #allPairs: number;
  readonly #allTokens: number;

  constructor(items: AffinityItems, theta: number) {
    const { count, experts, pairs, tokens } = items;
    this.#items = items;
    this.#theta = theta;
    this.#starts = new Int32Array(count + 1);
    const met = pairs.reduce((sum, value) => sum + (value > 0 ? 1 : 0), 0);
    this.#expert = new Uint16Array(met);
    this.#pairs = new Float32Array(met);
    let next = 0;
    for (let item = 0; item < count; item++) {
      for (let expert = 0; expert < experts; expert++) {
        const value = pairs[item * experts + expert]!;
        if (value === 0) continue;
        this.#expert[next] = expert;
        this.#pairs[next++] = value;
      }
      this.#starts[item + 1] = next;
    }
    this.#allPairs = this.#pairs.reduce((sum, value) => sum + value, 0);
    this.#allTokens = tokens.reduce((sum, value) => sum + value, 0);
  }

  /**
   * @param home [I] R
   * @param owner [N] C
   */
  cost(home: ArrayLike<number>, owner: ArrayLike<number>, devices: number): number {
    const slices = new Float64Array(devices);
    let local = 0;
    for (let item = 0; item < this.#items.count; item++) {
      const device = home[item]!;
      slices[device]! += this.#items.tokens[item]!;
      for (let at = this.#starts[item]!, end = this.#starts[item + 1]!; at < end; at++) {
        if (owner[this.#expert[at]!] === device) local += this.#pairs[at]!;
      }
    }
    const mean = this.#allTokens / devices;
    const uneven = slices.reduce((sum, slice) => sum + Math.abs(slice - mean), 0) / Math.max(1, this.#allTokens);
    return this.#theta * uneven + (1 - this.#theta) * (1 - local / Math.max(1, this.#allPairs));
  }
}
