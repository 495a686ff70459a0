import { BalancedSlices } from '../predict/slices.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { Plan } from './plan.ts';

/** The part of a plan that decides where experts are. */
export type ExpertPlacement = Pick<Plan, 'devices' | 'expertOwner' | 'replicas'>;

export interface LayerFigures {
  /** Share of routed pairs whose expert is on the token's home. */
  localActivationRate: number;
  /** Other devices that get a row of the token, mean. */
  remoteDevicesPerToken: number;
  /** Largest / mean routed pairs per device. */
  loadImbalance: number;
  /** Share of tokens whose home serves at least one of their experts. */
  recall: number;
}

export interface PlacementFigures extends LayerFigures {
  layers: LayerFigures[];
}

/** One layer's experts as a token of a given home meets them: the owner serves, or home where every expert it needs there has a copy. */
export class LayerPlacement {
  readonly #topK: number;
  /** [N] */
  readonly #owner: Uint16Array;
  /** [P][N] 1 where the device holds a copy; undefined without replicas. */
  readonly #copies: Uint8Array | undefined;
  /** [P] pairs of the token each device serves, from the last `serve`; 0 but for `involved`. */
  readonly served: Int32Array;
  /** [k + 1] the last token's owners in the order of its experts, then its home; `involvedCount` of them count. */
  readonly involved: Uint16Array;
  involvedCount: number = 0;
  readonly #uncovered: Int32Array;

  constructor(placement: ExpertPlacement, trace: RoutingTrace, layer: number) {
    const { experts, topK } = trace.model;
    this.#topK = topK;
    this.#owner = placement.expertOwner.subarray(layer * experts, (layer + 1) * experts);
    const replicas = placement.replicas[layer] ?? [];
    if (replicas.some((copies) => copies.length > 0)) {
      this.#copies = new Uint8Array(placement.devices * experts);
      replicas.forEach((copies, device) => copies.forEach((expert) => (this.#copies![device * experts + expert] = 1)));
    }
    this.served = new Int32Array(placement.devices);
    this.involved = new Uint16Array(topK + 1);
    this.#uncovered = new Int32Array(placement.devices);
  }

  /** Fills `served` for the token whose k experts start at `from`; returns the number of remote devices. */
  serve(experts: Uint16Array, from: number, home: number): number {
    const { served, involved } = this;
    const owner = this.#owner;
    const copies = this.#copies;
    for (let i = 0; i < this.involvedCount; i++) served[involved[i]!] = 0;
    let count = 0;
    for (let i = 0; i < this.#topK; i++) {
      const device = owner[experts[from + i]!]!;
      if (served[device]!++ === 0) involved[count++] = device;
    }
    let remote = count - (served[home]! > 0 ? 1 : 0);
    if (copies !== undefined) {
      const held = home * owner.length;
      for (let i = 0; i < count; i++) this.#uncovered[involved[i]!] = 0;
      for (let i = 0; i < this.#topK; i++) {
        const expert = experts[from + i]!;
        this.#uncovered[owner[expert]!]! += 1 - copies[held + expert]!;
      }
      for (let i = 0; i < count; i++) {
        const device = involved[i]!;
        if (device === home || this.#uncovered[device]! > 0) continue;
        served[home]! += served[device]!;
        served[device] = 0;
        remote--;
      }
    }
    involved[count++] = home;
    this.involvedCount = count;
    return remote;
  }

  /** The token's best home: fewest remote devices, then most local pairs, then the lower device. */
  bestHome(experts: Uint16Array, from: number): number {
    const { served, involved } = this;
    let home = 0;
    if (this.#copies === undefined) {
      // Any owner has one remote device less than a device that owns none of the token's experts.
      this.serve(experts, from, 0);
      home = involved[0]!;
      for (let i = 1; i + 1 < this.involvedCount; i++) {
        const device = involved[i]!;
        if (served[device]! > served[home]! || (served[device] === served[home] && device < home)) home = device;
      }
      return home;
    }
    let best = Number.POSITIVE_INFINITY;
    for (let device = 0; device < served.length; device++) {
      const remote = this.serve(experts, from, device);
      const score = remote * (this.#topK + 1) - served[device]!;
      if (score < best) {
        best = score;
        home = device;
      }
    }
    return home;
  }
}

/** [n] each token's own best home in one layer: fewest remote devices, then most local pairs, then the lower device. */
export function bestHomes(placement: ExpertPlacement, trace: RoutingTrace, layer: number): Uint16Array {
  const { layers, topK } = trace.model;
  const devices = new LayerPlacement(placement, trace, layer);
  const homes = new Uint16Array(trace.length);
  for (let row = 0; row < trace.length; row++)
    homes[row] = devices.bestHome(trace.experts, (row * layers + layer) * topK);
  return homes;
}

/**
 * [n] homes as equal slices of consecutive batches of tokens, chosen from predicted needs.
 *
 * @param needs [n, P]
 */
export function slicedHomes(needs: Uint8Array, tokens: number, devices: number, batchTokens: number): Uint16Array {
  const slices = new BalancedSlices(batchTokens, devices);
  const homes = new Uint16Array(tokens);
  for (let start = 0; start < tokens; start += batchTokens) {
    const count = Math.min(batchTokens, tokens - start);
    slices.solve(needs.subarray(start * devices, (start + count) * devices), count);
    homes.set(slices.rankOf.subarray(0, count), start);
  }
  return homes;
}

/** @param homes [n] */
export function measureLayer(
  placement: ExpertPlacement,
  trace: RoutingTrace,
  layer: number,
  homes: Uint16Array,
): LayerFigures {
  const { layers, topK } = trace.model;
  const devices = new LayerPlacement(placement, trace, layer);
  const load = new Float64Array(placement.devices);
  let local = 0;
  let remote = 0;
  let needed = 0;
  for (let row = 0; row < trace.length; row++) {
    const home = homes[row]!;
    remote += devices.serve(trace.experts, (row * layers + layer) * topK, home);
    local += devices.served[home]!;
    needed += devices.served[home]! > 0 ? 1 : 0;
    // The home comes twice when it owns one of the experts.
    const owners = devices.involvedCount - 1;
    let homeSeen = false;
    for (let i = 0; i < owners; i++) {
      const device = devices.involved[i]!;
      load[device]! += devices.served[device]!;
      homeSeen ||= device === home;
    }
    if (!homeSeen) load[home]! += devices.served[home]!;
  }
  const pairs = trace.length * topK;
  return {
    localActivationRate: local / pairs,
    remoteDevicesPerToken: remote / trace.length,
    loadImbalance: (Math.max(...load) * placement.devices) / pairs,
    recall: needed / trace.length,
  };
}

/**
 * What a placement achieves on a trace, per layer and averaged over layers.
 *
 * @param homesOf [n] home devices in a layer; by default each token's own best
 */
export function evaluatePlacement(
  placement: ExpertPlacement,
  trace: RoutingTrace,
  homesOf: (layer: number) => Uint16Array = (layer) => bestHomes(placement, trace, layer),
): PlacementFigures {
  const layers = Array.from({ length: trace.model.layers }, (_, layer) =>
    measureLayer(placement, trace, layer, homesOf(layer)),
  );
  const mean = (field: keyof LayerFigures): number =>
    layers.reduce((sum, figures) => sum + figures[field], 0) / layers.length;
  return {
    localActivationRate: mean('localActivationRate'),
    remoteDevicesPerToken: mean('remoteDevicesPerToken'),
    loadImbalance: mean('loadImbalance'),
    recall: mean('recall'),
    layers,
  };
}
