import { type PredictorName, predictorNames } from '../plan/plan.ts';

/** The engine's predictors, and `oracle`, which knows every token's experts: the most that prediction can reach. */
export type SimulatedPredictorName = PredictorName | 'oracle';
export const simulatedPredictorNames: readonly SimulatedPredictorName[] = [...predictorNames, 'oracle'];
