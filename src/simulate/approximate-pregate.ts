import type { Plan } from '../plan/plan.ts';
import { certainNeed, type DevicePredictor, type PredictionContext } from '../predict/predictor.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';

/** Replays with this come within about half a percent of the bytes of real runs of the shipped model (bench/simulator.ts). */
const defaultOverlap = 0.8;

export function defaultPregateOverlap(layers: number): Float64Array {
  return new Float64Array(layers).fill(defaultOverlap);
}

/**
 * Stands in for the `pregate` predictor where only a trace is at hand: each true expert is named with probability `overlap` of the
 * layer, else an expert the token does not use is named in its place. With overlap 1 it is an oracle. Depends on row, layer and
 * place only, so a replay is repeatable.
 */
export class ApproximatePregate implements DevicePredictor {
  readonly name: string = 'pregate';
  /** Trace rows of the tokens to predict. */
  rows: Int32Array;
  readonly #trace: RoutingTrace;
  readonly #plan: Plan;
  readonly #overlap: Float64Array;
  readonly #spared: Float64Array;

  /** @param overlap [L] */
  constructor(trace: RoutingTrace, plan: Plan, overlap: Float64Array) {
    this.rows = new Int32Array(0);
    this.#trace = trace;
    this.#plan = plan;
    this.#overlap = overlap;
    this.#spared = new Float64Array(plan.devices);
  }

  atHome(layer: number): boolean {
    return layer > 0;
  }

  predict({ layer, tokens }: PredictionContext, needs: Uint8Array): void {
    const { layers, topK, experts, devices, expertOwner } = this.#plan;
    const overlap = this.#overlap[layer]!;
    // What a pregate's soft margin leaves of an expert's weight when it is often wrong.
    const certainty = Math.min(0.99, overlap);
    const spared = this.#spared;
    for (let token = 0; token < tokens; token++) {
      const from = (this.rows[token]! * layers + layer) * topK;
      const used = this.#trace.experts.subarray(from, from + topK);
      spared.fill(1);
      for (let place = 0; place < topK; place++) {
        let named = used[place]!;
        if (uniform(this.rows[token]!, layer, 2 * place) >= overlap && experts > topK) {
          named = Math.floor(uniform(this.rows[token]!, layer, 2 * place + 1) * experts);
          while (used.includes(named)) named = (named + 1) % experts;
        }
        spared[expertOwner[layer * experts + named]!]! *= 1 - certainty;
      }
      for (let device = 0; device < devices; device++)
        needs[token * devices + device] = Math.round((1 - spared[device]!) * certainNeed);
    }
  }
}

/** 0 <= x < 1 from three small integers. */
function uniform(row: number, layer: number, place: number): number {
  let bits = Math.imul(row + 1, 0x9e3779b1) ^ Math.imul(layer + 1, 0x85ebca6b) ^ Math.imul(place + 1, 0xc2b2ae35);
  bits = Math.imul(bits ^ (bits >>> 15), 0x2c1b3c6d);
  bits = Math.imul(bits ^ (bits >>> 12), 0x297a2d39);
  return ((bits ^ (bits >>> 15)) >>> 0) / 2 ** 32;
}
