import type { Plan } from '../plan/plan.ts';
import { requirePredictionTables } from '../plan/prediction-tables.ts';
import type { DevicePredictor } from './predictor.ts';
import { createTokenPredictor } from './token.ts';

/**
 * A: what tokens needed that came from the same homes in the two layers before. Layer 0 has no layer before it and takes the
 * token table, since homes chosen without any knowledge would leave later layers nothing to go by.
 */
export function createTransitionPredictor(plan: Plan): DevicePredictor {
  const { transitionNeeds } = requirePredictionTables(plan);
  const { devices } = plan;
  const firstLayer = createTokenPredictor(plan);
  return {
    name: 'transition',
    atHome: () => false,
    predict(context, needs) {
      const { layer, tokens, homeBefore, homeTwoBefore } = context;
      if (layer === 0) {
        firstLayer.predict(context, needs);
        return;
      }
      const table = layer * devices * devices;
      for (let token = 0, at = 0; token < tokens; token++) {
        // The second home is -1 in layer 1, where the table does not depend on it.
        const before = Math.max(0, homeBefore[token]!);
        const twoBefore = Math.max(0, homeTwoBefore[token]!);
        const row = (table + before * devices + twoBefore) * devices;
        for (let device = 0; device < devices; device++, at++) needs[at] = transitionNeeds[row + device]!;
      }
    },
  };
}
