import type { Plan } from '../plan/plan.ts';
import { requirePredictionTables } from '../plan/prediction-tables.ts';

/**
 * Sends requests to data-parallel ranks by expert affinity (docs/method.md, request scheduling): each to the rank that scores
 * highest among those not yet served in this round, so that as many consecutive requests as there are ranks reach all of them.
 */
export class RequestPlacer {
  readonly ranks: number;
  /** [V][ranks] sum over layers and the rank's devices of Pr(device needed | token id) * 255. */
  readonly #affinity: Int32Array;
  readonly #vocabularySize: number;
  readonly #served: Uint8Array;
  #servedCount: number;

  /** @param ranks data-parallel ranks; each holds a contiguous block of the plan's devices */
  constructor(plan: Plan, ranks: number) {
    const { layers, vocabularySize, devices } = plan;
    const { tokenNeeds } = requirePredictionTables(plan);
    const devicesPerRank = devices / ranks;
    this.ranks = ranks;
    this.#vocabularySize = vocabularySize;
    this.#affinity = new Int32Array(vocabularySize * ranks);
    for (let layer = 0, at = 0; layer < layers; layer++) {
      for (let id = 0; id < vocabularySize; id++) {
        for (let device = 0; device < devices; device++, at++) {
          this.#affinity[id * ranks + Math.floor(device / devicesPerRank)]! += tokenNeeds[at]!;
        }
      }
    }
    this.#served = new Uint8Array(ranks);
    this.#servedCount = 0;
  }

  /** [ranks] expected needed devices per token and layer on each rank; exact integers divided once, so equal on every host. */
  score(promptTokens: Int32Array): Float64Array {
    const sums = new Float64Array(this.ranks);
    for (const id of promptTokens) {
      if (id < 0 || id >= this.#vocabularySize) continue;
      for (let rank = 0; rank < this.ranks; rank++) sums[rank]! += this.#affinity[id * this.ranks + rank]!;
    }
    return sums.map((sum) => sum / (255 * Math.max(1, promptTokens.length)));
  }

  /** Rank for the next request; ties to the lower rank. */
  place(promptTokens: Int32Array): number {
    const score = this.score(promptTokens);
    let best = -1;
    for (let rank = 0; rank < this.ranks; rank++) {
      if (this.#served[rank] === 0 && (best < 0 || score[rank]! > score[best]!)) best = rank;
    }
    this.#served[best] = 1;
    if (++this.#servedCount === this.ranks) {
      this.#served.fill(0);
      this.#servedCount = 0;
    }
    return best;
  }
}
