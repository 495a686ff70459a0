import { createTokenPredictor } from '../predict/token.ts';
import { createTransitionPredictor } from '../predict/transition.ts';
import type { PredictionContext } from '../predict/predictor.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { measureLayer, slicedHomes } from './evaluate.ts';
import { type LayerPredictorName, layerPredictorNames, longestLookback, type Plan } from './plan.ts';

/** Tokens per batch when equal slices are cut for measuring; about one prefill chunk. */
const batchTokens = 256;

/** Per predictor, [L] share of tokens whose sliced home they needed (LayerFigures.recall). */
export type PredictorRecall = Partial<Record<LayerPredictorName, Float64Array>>;

/** Measures the table predictors of a plan on a trace, under equal slices. */
export function measureTablePredictors(plan: Plan, trace: RoutingTrace): PredictorRecall {
  const recall: PredictorRecall = {};
  for (const predictor of [createTokenPredictor(plan), createTransitionPredictor(plan)]) {
    const needs = new Uint8Array(trace.length * plan.devices);
    const ofLayer = new Float64Array(plan.layers);
    const homesBefore = Array.from({ length: longestLookback }, () => new Int16Array(trace.length).fill(-1));
    const tokenIds = trace.token.map((id) => Math.max(0, id));
    for (let layer = 0; layer < plan.layers; layer++) {
      const context: PredictionContext = {
        layer,
        tokens: trace.length,
        tokenIds,
        homesBefore,
        routeAhead: noRouter,
      };
      predictor.predict(context, needs);
      const homes = slicedHomes(needs, trace.length, plan.devices, batchTokens);
      ofLayer[layer] = measureLayer(plan, trace, layer, homes).recall;
      const oldest = homesBefore.pop()!;
      oldest.set(homes);
      homesBefore.unshift(oldest);
    }
    recall[predictor.name as LayerPredictorName] = ofLayer;
  }
  return recall;
}

function noRouter(): void {
  throw new Error('table predictors run no router');
}

/**
 * Per layer the predictor with the highest recall. Where the pregate was not measured it is taken as best in every layer but the
 * first, where the router's input lacks the first attention and does badly.
 */
export function chooseLayerPredictors(recall: PredictorRecall, layers: number): LayerPredictorName[] {
  return Array.from({ length: layers }, (_, layer) => {
    if (recall.pregate === undefined && layer > 0) return 'pregate';
    let best: LayerPredictorName = 'pregate';
    let highest = Number.NEGATIVE_INFINITY;
    for (const name of layerPredictorNames) {
      const value = recall[name]?.[layer] ?? Number.NEGATIVE_INFINITY;
      if (value > highest) {
        highest = value;
        best = name;
      }
    }
    return best;
  });
}
