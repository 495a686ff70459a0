import type { Layout } from '../engine/api.ts';
import { ExitStatus, SmoeError } from '../errors.ts';
import { longestLookback, type Plan } from '../plan/plan.ts';
import { requirePredictionTables } from '../plan/prediction-tables.ts';
import { createCombinedPredictor } from '../predict/combined.ts';
import { createPredictor } from '../predict/index.ts';
import type { DevicePredictor, PredictionContext } from '../predict/predictor.ts';
import { foldToRanks, neededMost } from '../predict/rank-needs.ts';
import { BalancedSlices } from '../predict/slices.ts';
import { createTokenPredictor } from '../predict/token.ts';
import { createTransitionPredictor } from '../predict/transition.ts';
import { sliceSizes } from '../schedule/token-slices.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { ApproximatePregate, defaultPregateOverlap } from './approximate-pregate.ts';
import { simulatedPredictorNames, type SimulatedPredictorName } from './predictors.ts';
import type { TokenBatch } from './steps.ts';

/** Where homes come from; in every report, because `approximated` and `oracle` are not what an engine would do. */
export type HomeSource = 'contiguous' | 'recorded' | 'predicted' | 'approximated' | 'oracle';

/** Says on which rank each token of a batch lives in a layer. Layers of a step are asked for in order. */
export interface HomeChooser {
  readonly source: HomeSource;
  /** Layers whose choice runs the layer's router once more, at home, and whose needs travel with the rows of the layer before. */
  pregates(layer: number): boolean;
  /** @param homes [n] output, for the rows of the batch */
  choose(batch: TokenBatch, layer: number, homes: Int32Array): void;
}

/** Slices by token index within each data-parallel group: what engines without prediction do. */
export function contiguousHomes({ tensorParallel }: Layout): HomeChooser {
  const sizes = new Int32Array(tensorParallel);
  return {
    source: 'contiguous',
    pregates: () => false,
    choose({ groupTokens }, _layer, homes) {
      let at = 0;
      groupTokens.forEach((tokens, group) => {
        sliceSizes(tokens, tensorParallel, sizes).forEach((count, slice) => {
          homes.fill(group * tensorParallel + slice, at, at + count);
          at += count;
        });
      });
    },
  };
}

/**
 * As a real run recorded them.
 *
 * @param recorded [rows of the trace][L]
 * @param pregates layers that the run predicted at home; what rows brought along is counted for them
 */
export function recordedHomes(
  recorded: Uint8Array,
  layers: number,
  pregates: (layer: number) => boolean = () => false,
): HomeChooser {
  return {
    source: 'recorded',
    pregates,
    choose({ rows }, layer, homes) {
      rows.forEach((row, i) => (homes[i] = recorded[row * layers + layer]!));
    },
  };
}

export interface PredictedHomesOptions {
  trace: RoutingTrace;
  plan: Plan;
  layout: Layout;
  predictor: SimulatedPredictorName;
  /** Largest number of rows a group has in a step. */
  stepTokens: number;
  /** [L] share of the true experts that a pregate names; see ApproximatePregate. */
  pregateOverlap?: Float64Array;
}

/** Balanced slices by predicted needs, as the schedule `speculative` cuts them (schedule/predicted-slices.ts). */
export function predictedHomes(options: PredictedHomesOptions): HomeChooser {
  const { trace, plan, layout, predictor: name } = options;
  const { dataParallel, tensorParallel } = layout;
  if (tensorParallel === 1) return { ...contiguousHomes(layout), source: 'predicted' };
  const overlap = options.pregateOverlap ?? defaultPregateOverlap(plan.layers);
  const pregate = new ApproximatePregate(
    trace,
    plan,
    name === 'oracle' ? new Float64Array(plan.layers).fill(1) : overlap,
  );
  const predictor = predictorNamed(name, plan, pregate);
  assertTokens(trace, name);
  const groups = Array.from({ length: dataParallel }, (_, group) => new PredictedGroup(options, group, predictor));
  const usesPregate = (layer: number): boolean =>
    layer > 0 && (name === 'pregate' || (name === 'combined' && plan.prediction!.bestPredictor[layer] === 'pregate'));
  const approximated = Array.from({ length: plan.layers }, (_, layer) => usesPregate(layer)).some(Boolean);
  return {
    source: name === 'oracle' ? 'oracle' : approximated ? 'approximated' : 'predicted',
    pregates: usesPregate,
    choose({ rows, groupTokens }, layer, homes) {
      let at = 0;
      groupTokens.forEach((tokens, group) => {
        const part = rows.subarray(at, at + tokens);
        pregate.rows = part;
        groups[group]!.choose(part, layer, homes.subarray(at, at + tokens));
        at += tokens;
      });
    },
  };
}

function predictorNamed(name: SimulatedPredictorName, plan: Plan, pregate: ApproximatePregate): DevicePredictor {
  switch (name) {
    case 'oracle':
    case 'pregate':
      return pregate;
    case 'combined':
      requirePredictionTables(plan);
      return createCombinedPredictor(plan, {
        token: createTokenPredictor(plan),
        transition: createTransitionPredictor(plan),
        pregate,
      });
    default:
      return createPredictor(name, plan);
  }
}

function assertTokens({ token }: RoutingTrace, name: SimulatedPredictorName): void {
  if (name !== 'token' && name !== 'combined') return;
  const row = token.indexOf(-1);
  if (row === -1) return;
  throw new SmoeError('SIMULATE_NO_TOKENS', `row ${row} has no token id, which the predictor \`${name}\` needs`, {
    hint: `choose one of: ${simulatedPredictorNames.filter((other) => other !== 'token' && other !== 'combined').join(', ')}`,
    exitStatus: ExitStatus.usage,
  });
}

/** One data-parallel group's predicted slices. Mirrors PredictedSlices, without a model. */
class PredictedGroup {
  readonly #trace: RoutingTrace;
  readonly #predictor: DevicePredictor;
  readonly #balancer: BalancedSlices;
  readonly #ranks: number;
  readonly #firstRank: number;
  readonly #devices: number;
  readonly #block: number;
  /** [T, P] */
  readonly #needs: Uint8Array;
  /** [T, tp] */
  readonly #benefit: Uint8Array;
  /** [lookback][T], the nearest layer first */
  readonly #homesBefore: Int16Array[];

  constructor({ trace, plan, layout, stepTokens }: PredictedHomesOptions, group: number, predictor: DevicePredictor) {
    const { dataParallel, tensorParallel } = layout;
    this.#trace = trace;
    this.#predictor = predictor;
    this.#ranks = tensorParallel;
    this.#firstRank = group * tensorParallel;
    this.#devices = plan.devices;
    this.#block = plan.devices / (dataParallel * tensorParallel);
    this.#balancer = new BalancedSlices(stepTokens, tensorParallel);
    this.#needs = new Uint8Array(stepTokens * plan.devices);
    this.#benefit = new Uint8Array(stepTokens * tensorParallel);
    this.#homesBefore = Array.from({ length: longestLookback }, () => new Int16Array(stepTokens));
  }

  choose(rows: Int32Array, layer: number, homes: Int32Array): void {
    if (rows.length === 0) return;
    if (layer === 0) for (const before of this.#homesBefore) before.fill(-1);
    const context: PredictionContext = {
      layer,
      tokens: rows.length,
      tokenIds: rows.map((row) => this.#trace.token[row]!),
      homesBefore: this.#homesBefore,
      routeAhead: () => {
        throw new Error('a trace holds no hidden rows to run the router on');
      },
    };
    this.#predictor.predict(context, this.#needs);
    const firstDevice = this.#firstRank * this.#block;
    foldToRanks(this.#needs, rows.length, this.#devices, firstDevice, this.#block, this.#ranks, this.#benefit);
    this.#balancer.solve(this.#benefit, rows.length);
    const before = this.#homesBefore.pop()!;
    this.#homesBefore.unshift(before);
    for (let token = 0; token < rows.length; token++) {
      homes[token] = this.#firstRank + this.#balancer.rankOf[token]!;
      const first = homes[token]! * this.#block;
      before[token] = neededMost(this.#needs, token, this.#devices, first, this.#block);
    }
  }
}
