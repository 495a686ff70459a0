import type { Plan } from '../plan/plan.ts';
import { certainNeed, oneRankSaved, type DevicePredictor, type PredictionContext } from '../predict/predictor.ts';
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
  /** [P][P + 1] per owner: probability that none is chosen of its experts that a home lacks, and of all. */
  readonly #spared: Float64Array;
  /** [L][P][N] 1 where a device owns or copies an expert; undefined without copies. */
  readonly #held: Uint8Array | undefined;

  /** @param overlap [L] */
  constructor(trace: RoutingTrace, plan: Plan, overlap: Float64Array) {
    this.rows = new Int32Array(0);
    this.#trace = trace;
    this.#plan = plan;
    this.#overlap = overlap;
    this.#spared = new Float64Array(plan.devices * (plan.devices + 1));
    this.#held = plan.replicas.some((layer) => layer.some((copies) => copies.length > 0)) ? heldBy(plan) : undefined;
  }

  atHome(layer: number): boolean {
    return layer > 0;
  }

  predict({ layer, tokens }: PredictionContext, needs: Uint8Array): void {
    const { layers, topK, experts, devices } = this.#plan;
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
        this.#spare(layer, named, 1 - certainty);
      }
      const scale = this.#held === undefined ? certainNeed : oneRankSaved;
      for (let home = 0; home < devices; home++) {
        let saved = 0;
        for (let owner = 0; owner < devices; owner++) {
          const at = owner * (devices + 1);
          saved += spared[at + home]! - spared[at + devices]!;
        }
        needs[token * devices + home] = Math.min(255, Math.round(saved * scale));
      }
    }
  }

  /** As kernels/assembly/route-ahead.ts does. */
  #spare(layer: number, expert: number, factor: number): void {
    const { experts, devices, expertOwner } = this.#plan;
    const owner = expertOwner[layer * experts + expert]!;
    const at = owner * (devices + 1);
    for (let home = 0; home < devices; home++) {
      const holds = this.#held?.[(layer * devices + home) * experts + expert] === 1;
      if (home !== owner && !holds) this.#spared[at + home]! *= factor;
    }
    this.#spared[at + devices]! *= factor;
  }
}

function heldBy({ layers, experts, devices, expertOwner, replicas }: Plan): Uint8Array {
  const held = new Uint8Array(layers * devices * experts);
  for (let layer = 0; layer < layers; layer++) {
    for (let expert = 0; expert < experts; expert++)
      held[(layer * devices + expertOwner[layer * experts + expert]!) * experts + expert] = 1;
    replicas[layer]!.forEach((copies, device) => {
      for (const expert of copies) held[(layer * devices + device) * experts + expert] = 1;
    });
  }
  return held;
}

/** 0 <= x < 1 from three small integers. */
function uniform(row: number, layer: number, place: number): number {
  let bits = Math.imul(row + 1, 0x9e3779b1) ^ Math.imul(layer + 1, 0x85ebca6b) ^ Math.imul(place + 1, 0xc2b2ae35);
  bits = Math.imul(bits ^ (bits >>> 15), 0x2c1b3c6d);
  bits = Math.imul(bits ^ (bits >>> 12), 0x297a2d39);
  return ((bits ^ (bits >>> 15)) >>> 0) / 2 ** 32;
}
