import { longestLookback, type Plan } from '../plan/plan.ts';
import type { DevicePredictor, PredictionContext } from '../predict/predictor.ts';
import { foldToRanks, neededMost } from '../predict/rank-needs.ts';
import { BalancedSlices } from '../predict/slices.ts';
import { Phase } from '../timeline/phases.ts';
import type { ScheduleResources } from './schedule.ts';
import { sliceSizes, type SliceChooser, type SlicedTokens, type TokenSlices } from './token-slices.ts';

const noTokens = new Int32Array(0);

/**
 * Slices by prediction (docs/method.md, token shuffling): every rank of the tensor group knows which ranks each token needs,
 * from tables that all hold or from what the token's home sent along with its row, and all compute the same assignment.
 */
export class PredictedSlices implements SliceChooser {
  readonly #resources: ScheduleResources;
  readonly #devices: number;
  readonly #firstRank: number;
  readonly #predictor: DevicePredictor;
  readonly #balancer: BalancedSlices;
  /** [T, P], and [T, tp]. */
  readonly #needs: Uint8Array;
  readonly #benefit: Uint8Array;
  /** Of even and of odd layers, so that a layer's slices outlive the choice of the next. */
  readonly #chosen: [TokenSlices, TokenSlices];
  readonly #orders: [Int32Array, Int32Array];
  #chosenLayer: number;
  /** [lookback][T] plan device of each token's home in the layers before, the nearest first. */
  readonly #homesBefore: Int16Array[];

  /** @param dataParallelRank group whose ranks share the tokens; @param stepTokens largest T */
  constructor(
    resources: ScheduleResources,
    plan: Plan,
    dataParallelRank: number,
    predictor: DevicePredictor,
    stepTokens: number,
  ) {
    const ranks = resources.tensorGroup.size;
    this.#resources = resources;
    this.#devices = plan.devices;
    this.#firstRank = dataParallelRank * ranks;
    this.#predictor = predictor;
    this.#balancer = new BalancedSlices(stepTokens, ranks);
    this.#needs = new Uint8Array(stepTokens * plan.devices);
    this.#benefit = new Uint8Array(stepTokens * ranks);
    const empty = (): TokenSlices => ({ order: undefined, counts: new Int32Array(ranks) });
    this.#chosen = [empty(), empty()];
    this.#orders = [new Int32Array(stepTokens), new Int32Array(stepTokens)];
    this.#chosenLayer = -1;
    this.#homesBefore = Array.from({ length: longestLookback }, () => new Int16Array(stepTokens));
  }

  choose(layer: number, input: SlicedTokens): TokenSlices {
    const slices = this.#chosen[layer % 2]!;
    if (layer > 0 && this.#chosenLayer === layer) return slices;
    const { tensorGroup, clock } = this.#resources;
    const { tokens } = input;
    this.#chosenLayer = layer;
    if (layer === 0) for (const homes of this.#homesBefore) homes.fill(-1, 0, tokens);
    slices.order = undefined;
    sliceSizes(tokens, tensorGroup.size, slices.counts);
    if (tensorGroup.size === 1 || tokens === 0) return slices;
    if (!this.#predictor.atHome(layer)) {
      clock.enter(Phase.predict);
      this.#predictor.predict(this.#context(layer, input), this.#needs);
    }
    clock.enter(Phase.slices);
    if (!this.#predictor.atHome(layer)) this.#foldToRanks(tokens);
    if (this.#benefit.subarray(0, tokens * tensorGroup.size).some((benefit) => benefit > 0))
      this.#cut(layer, tokens, slices);
    return slices;
  }

  ridingBytes(layer: number): number {
    const { size } = this.#resources.tensorGroup;
    return size > 1 && this.#predictor.atHome(layer) ? size : 0;
  }

  packRiding(layer: number, residual: number, rows: number, target: number): void {
    const { experts, bytes, buffers, clock } = this.#resources;
    clock.enter(Phase.predict);
    const context: PredictionContext = {
      layer,
      tokens: rows,
      tokenIds: noTokens,
      homesBefore: [],
      // The own rows' place in `input` is free by now.
      routeAhead: (doubt) => experts.routeAhead(layer, residual, rows, buffers.input, doubt, target),
    };
    this.#predictor.predict(context, bytes.subarray(target, target + rows * this.ridingBytes(layer)));
  }

  unpackRiding(_layer: number, source: number, tokens: Int32Array): void {
    const { bytes } = this.#resources;
    const ranks = this.#resources.tensorGroup.size;
    for (let i = 0, from = source; i < tokens.length; i++) {
      const to = tokens[i]! * ranks;
      for (let rank = 0; rank < ranks; rank++) this.#benefit[to + rank] = bytes[from++]!;
    }
  }

  choosesEarly(layer: number): boolean {
    return !this.#predictor.atHome(layer);
  }

  #context(layer: number, { tokens, tokenIds }: SlicedTokens): PredictionContext {
    return {
      layer,
      tokens,
      tokenIds,
      homesBefore: this.#homesBefore,
      routeAhead: () => {
        throw new Error('only predictors at home have the rows');
      },
    };
  }

  #foldToRanks(tokens: number): void {
    const { tensorGroup, ownership } = this.#resources;
    const block = ownership.devicesPerRank;
    const firstDevice = this.#firstRank * block;
    foldToRanks(this.#needs, tokens, this.#devices, firstDevice, block, tensorGroup.size, this.#benefit);
  }

  #cut(layer: number, tokens: number, slices: TokenSlices): void {
    const block = this.#resources.ownership.devicesPerRank;
    const firstDevice = this.#firstRank * block;
    // At home, rows bring no word of single devices.
    const single = block === 1 || this.#predictor.atHome(layer);
    const balancer = this.#balancer;
    balancer.solve(this.#benefit, tokens);
    const order = this.#orders[layer % 2]!;
    order.set(balancer.order.subarray(0, tokens));
    slices.order = order.subarray(0, tokens);
    slices.counts.set(balancer.counts);
    const homes = this.#homesBefore.pop()!;
    this.#homesBefore.unshift(homes);
    for (let token = 0; token < tokens; token++) {
      const first = firstDevice + balancer.rankOf[token]! * block;
      homes[token] = single ? first : neededMost(this.#needs, token, this.#devices, first, block);
    }
  }
}
