import type { Plan } from '../plan/plan.ts';
import type { DevicePredictor } from './predictor.ts';
import { createTokenPredictor } from './token.ts';

/**
 * Width of the doubt around the k-th logit, in mean absolute deviations of the token's logits: experts further above are taken as
 * certain, further below as excluded.
 */
const doubtWidth = 1;

/**
 * Runs the layer's own router ahead of time, on the layer's input, and takes its choice with a soft margin
 * (kernels/assembly/needs.ts). Layer 0, whose input knows nothing of the text before the token, takes the token table, or
 * no prediction when the plan has none.
 */
export function createPregatePredictor(plan: Plan): DevicePredictor {
  const firstLayer = plan.prediction === undefined ? undefined : createTokenPredictor(plan);
  return {
    name: 'pregate',
    atHome: (layer) => layer > 0,
    predict(context, needs) {
      const { layer, tokens } = context;
      if (layer > 0) {
        context.routeAhead(doubtWidth, needs);
        return;
      }
      needs.fill(0, 0, tokens * plan.devices);
      firstLayer?.predict(context, needs);
    },
  };
}
