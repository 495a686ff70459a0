import type { Plan } from '../plan/plan.ts';
import { requirePredictionTables } from '../plan/prediction-tables.ts';
import type { DevicePredictor } from './predictor.ts';

/** T: what tokens of the same id needed in profiling; where devices hold copies, what living on each device saved them. */
export function createTokenPredictor(plan: Plan): DevicePredictor {
  const { tokenNeeds, tokenSaves = tokenNeeds } = requirePredictionTables(plan);
  const { devices, vocabularySize } = plan;
  return {
    name: 'token',
    atHome: () => false,
    predict({ layer, tokens, tokenIds }, needs) {
      const table = layer * vocabularySize;
      for (let token = 0, at = 0; token < tokens; token++) {
        const row = (table + tokenIds[token]!) * devices;
        for (let device = 0; device < devices; device++, at++) needs[at] = tokenSaves[row + device]!;
      }
    },
  };
}
