import { requirePredictionTables } from '../plan/prediction-tables.ts';
import type { LayerPredictorName, Plan } from '../plan/plan.ts';
import type { DevicePredictor } from './predictor.ts';

/** Per layer the predictor that did best in profiling. */
export function createCombinedPredictor(
  plan: Plan,
  predictors: Record<LayerPredictorName, DevicePredictor>,
): DevicePredictor {
  const ofLayer = requirePredictionTables(plan).bestPredictor.map((name) => predictors[name]);
  return {
    name: 'combined',
    atHome: (layer) => ofLayer[layer]!.atHome(layer),
    predict(context, needs) {
      ofLayer[context.layer]!.predict(context, needs);
    },
  };
}
