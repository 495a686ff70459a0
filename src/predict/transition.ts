import type { Plan } from '../plan/plan.ts';
import { requirePredictionTables } from '../plan/prediction-tables.ts';
import type { DevicePredictor } from './predictor.ts';
import { createTokenPredictor } from './token.ts';

/**
 * A: what tokens needed that came from the same homes in the layers before. Layer 0 has no layer before it and takes the
 * token table, since homes chosen without any knowledge would leave later layers nothing to go by.
 */
export function createTransitionPredictor(plan: Plan): DevicePredictor {
  const { transitionNeeds, transitionLookback } = requirePredictionTables(plan);
  const { devices } = plan;
  const firstLayer = createTokenPredictor(plan);
  return {
    name: 'transition',
    atHome: () => false,
    predict(context, needs) {
      const { layer, tokens, homesBefore } = context;
      if (layer === 0) {
        firstLayer.predict(context, needs);
        return;
      }
      const table = layer * devices ** transitionLookback;
      for (let token = 0, at = 0; token < tokens; token++) {
        let history = 0;
        // Homes further back than layer 0 are -1; the table does not depend on them there.
        for (let back = 0; back < transitionLookback; back++)
          history = history * devices + Math.max(0, homesBefore[back]![token]!);
        const row = (table + history) * devices;
        for (let device = 0; device < devices; device++, at++) needs[at] = transitionNeeds[row + device]!;
      }
    },
  };
}
