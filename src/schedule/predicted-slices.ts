import type { TransformerBuffers } from '../engine/rank-buffers.ts';
import { longestLookback, type Plan } from '../plan/plan.ts';
import type { DevicePredictor, PredictionContext } from '../predict/predictor.ts';
import { BalancedSlices } from '../predict/slices.ts';
import type { LayerInput, ScheduleResources } from './schedule.ts';
import type { SliceChooser, TokenSlices } from './token-slices.ts';

/**
 * Slices by prediction (docs/method.md, token shuffling): every rank of the tensor group predicts, from what all of them
 * hold, which ranks each token needs, and computes the same balanced assignment without a message.
 */
export class PredictedSlices implements SliceChooser {
  readonly #resources: ScheduleResources;
  readonly #buffers: TransformerBuffers;
  readonly #devices: number;
  readonly #firstRank: number;
  readonly #predictor: DevicePredictor;
  readonly #balancer: BalancedSlices;
  readonly #needs: Float32Array;
  readonly #benefit: Float32Array;
  /** [lookback][T] plan device of each token's home in the layers before, the nearest first. */
  readonly #homesBefore: Int16Array[];

  /** @param dataParallelRank group whose ranks share the tokens; @param stepTokens largest T */
  constructor(
    resources: ScheduleResources,
    buffers: TransformerBuffers,
    plan: Plan,
    dataParallelRank: number,
    predictor: DevicePredictor,
    stepTokens: number,
  ) {
    const ranks = resources.tensorGroup.size;
    this.#resources = resources;
    this.#buffers = buffers;
    this.#devices = plan.devices;
    this.#firstRank = dataParallelRank * ranks;
    this.#predictor = predictor;
    this.#balancer = new BalancedSlices(stepTokens, ranks);
    this.#needs = new Float32Array(stepTokens * plan.devices);
    this.#benefit = new Float32Array(stepTokens * ranks);
    this.#homesBefore = Array.from({ length: longestLookback }, () => new Int16Array(stepTokens));
  }

  choose(input: LayerInput): TokenSlices {
    const { tokens } = input;
    const ranks = this.#resources.tensorGroup.size;
    if (ranks === 1 || tokens === 0) return { order: undefined, counts: new Int32Array(ranks).fill(tokens) };
    if (input.layer === 0) for (const homes of this.#homesBefore) homes.fill(-1);
    this.#predictor.predict(this.#context(input), this.#needs);
    this.#foldToRanks(tokens);
    this.#balancer.solve(this.#benefit, tokens);
    const { counts } = this.#balancer;
    const order = this.#balancer.order.subarray(0, tokens);
    this.#rememberHomes(order, counts);
    return { order, counts };
  }

  #context(input: LayerInput): PredictionContext {
    const { tokens, layer } = input;
    const { experts, floats, ownership } = this.#resources;
    return {
      layer,
      tokens,
      tokenIds: input.tokenIds,
      homesBefore: this.#homesBefore,
      pregateLogits: () => {
        const { pregateNormalized, pregateLogits } = this.#buffers;
        experts.routerLogits(layer, input.hidden, tokens, pregateNormalized, pregateLogits);
        return floats.subarray(pregateLogits / 4, pregateLogits / 4 + tokens * ownership.experts);
      },
    };
  }

  /** benefit [T, tp]: probability that a tensor rank's block of devices is needed, devices taken as independent. */
  #foldToRanks(tokens: number): void {
    const ranks = this.#resources.tensorGroup.size;
    const block = this.#resources.ownership.devicesPerRank;
    for (let token = 0; token < tokens; token++) {
      for (let rank = 0; rank < ranks; rank++) {
        const first = token * this.#devices + (this.#firstRank + rank) * block;
        let unneeded = 1;
        for (let device = first; device < first + block; device++) unneeded *= 1 - this.#needs[device]!;
        this.#benefit[token * ranks + rank] = 1 - unneeded;
      }
    }
  }

  /** A token's home device is the one of its rank's block that it needs most. */
  #rememberHomes(order: Int32Array, counts: Int32Array): void {
    const block = this.#resources.ownership.devicesPerRank;
    const homes = this.#homesBefore.pop()!;
    this.#homesBefore.unshift(homes);
    let at = 0;
    counts.forEach((count, rank) => {
      const first = (this.#firstRank + rank) * block;
      const end = at + count;
      for (; at < end; at++) {
        const token = order[at]!;
        let home = first;
        for (let device = first + 1; device < first + block; device++) {
          if (this.#needs[token * this.#devices + device]! > this.#needs[token * this.#devices + home]!) home = device;
        }
        homes[token] = home;
      }
    });
  }
}
