import type { Plan, PredictorName } from '../plan/plan.ts';
import { createCombinedPredictor } from './combined.ts';
import { createPregatePredictor } from './pregate.ts';
import { createRandomPredictor } from './random.ts';
import type { DevicePredictor } from './predictor.ts';
import { createTokenPredictor } from './token.ts';
import { createTransitionPredictor } from './transition.ts';

export interface PredictorOptions {
  /** Of the 'random' predictor. */
  seed?: number;
}

/** Every predictor by name; adding one adds a line here and to `predictorNames`. */
const factories: Readonly<Record<PredictorName, (plan: Plan, options: PredictorOptions) => DevicePredictor>> = {
  token: createTokenPredictor,
  transition: createTransitionPredictor,
  pregate: createPregatePredictor,
  combined: (plan) =>
    createCombinedPredictor(plan, {
      token: createTokenPredictor(plan),
      transition: createTransitionPredictor(plan),
      pregate: createPregatePredictor(plan),
    }),
  random: (plan, { seed = 0 }) => createRandomPredictor(plan, seed),
};

/** PLAN_NO_TABLES when the predictor needs tables that the plan lacks. */
export function createPredictor(name: PredictorName, plan: Plan, options: PredictorOptions = {}): DevicePredictor {
  return factories[name](plan, options);
}
