import type { Plan } from '../plan/plan.ts';
import { certainNeed, type DevicePredictor } from './predictor.ts';
import { createTokenPredictor } from './token.ts';

/**
 * Width of the doubt around the k-th logit, in mean absolute deviations of the token's logits: experts further above are taken as
 * certain, further below as excluded.
 */
const doubtWidth = 1;

/**
 * Runs the layer's own router ahead of time, on the layer's input, and takes its choice with a soft margin: p_e rises from 0 to 1 around
 * the k-th logit, and device d is needed with probability 1 - prod over its experts of (1 - p_e). Layer 0, whose input knows
 * nothing of the text before the token, takes the token table, or no prediction when the plan has none.
 */
export function createPregatePredictor(plan: Plan): DevicePredictor {
  const { devices, experts, topK, expertOwner } = plan;
  const largest = new Float64Array(topK + 1);
  const spared = new Float64Array(devices);
  const firstLayer = plan.prediction === undefined ? undefined : createTokenPredictor(plan);
  return {
    name: 'pregate',
    atHome: (layer) => layer > 0,
    predict(context, needs) {
      const { layer, tokens } = context;
      if (layer === 0) {
        needs.fill(0, 0, tokens * devices);
        firstLayer?.predict(context, needs);
        return;
      }
      const logits = context.pregateLogits();
      for (let token = 0; token < tokens; token++) {
        const row = token * experts;
        const boundary = choiceBoundary(logits, row, experts, largest, topK);
        const width = doubtWidth * meanDeviation(logits, row, experts);
        spared.fill(1);
        for (let expert = 0; expert < experts; expert++) {
          const chosen = softStep(logits[row + expert]! - boundary, width);
          if (chosen > 0) spared[expertOwner[layer * experts + expert]!]! *= 1 - chosen;
        }
        for (let device = 0; device < devices; device++) {
          needs[token * devices + device] = Math.round((1 - spared[device]!) * certainNeed);
        }
      }
    },
  };
}

/** Midway between the k-th and the (k+1)-th largest logit. @param largest [k + 1] scratch */
function choiceBoundary(
  logits: Float32Array,
  row: number,
  experts: number,
  largest: Float64Array,
  topK: number,
): number {
  largest.fill(Number.NEGATIVE_INFINITY);
  for (let expert = 0; expert < experts; expert++) {
    const logit = logits[row + expert]!;
    if (logit <= largest[topK]!) continue;
    let place = topK;
    for (; place > 0 && logit > largest[place - 1]!; place--) largest[place] = largest[place - 1]!;
    largest[place] = logit;
  }
  return experts > topK ? (largest[topK - 1]! + largest[topK]!) / 2 : largest[topK - 1]!;
}

function meanDeviation(logits: Float32Array, row: number, experts: number): number {
  let sum = 0;
  for (let expert = 0; expert < experts; expert++) sum += logits[row + expert]!;
  const mean = sum / experts;
  let deviation = 0;
  for (let expert = 0; expert < experts; expert++) deviation += Math.abs(logits[row + expert]! - mean);
  return deviation / experts;
}

/** 0 below -width, 1 above +width, a smooth cubic between. */
function softStep(value: number, width: number): number {
  if (value >= width) return 1;
  if (value <= -width) return 0;
  const x = value / width;
  return 0.5 + x * (0.75 - 0.25 * x * x);
}
