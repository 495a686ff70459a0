import type { Plan } from '../plan/plan.ts';
import { createPregatePredictor } from '../predict/pregate.ts';
import type { PredictionContext } from '../predict/predictor.ts';
import { BalancedSlices } from '../predict/slices.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { threadSeconds } from './thread-time.ts';
import { undisturbed } from './undisturbed.ts';

const repeats = 7;

/**
 * Seconds per token and layer of what `speculative` does on every rank of a tensor group before tokens move, the router's matrix product
 * left out: the pregate predictor over logits that single out the token's true experts, and balanced slices.
 *
 * @param plan over as many devices as there are ranks
 */
export function measurePrediction(trace: RoutingTrace, plan: Plan, ranks: number, stepTokens: number): number {
  const { layers, experts, topK } = plan;
  const tokens = Math.min(stepTokens, trace.length);
  const logits = new Float32Array(tokens * experts);
  const needs = new Float32Array(tokens * ranks);
  const slices = new BalancedSlices(tokens, ranks);
  const predictor = createPregatePredictor(plan);
  const context: PredictionContext = {
    ...{ layer: 0, tokens, tokenIds: trace.token.subarray(0, tokens) },
    ...{ homeBefore: new Int16Array(tokens).fill(-1), homeTwoBefore: new Int16Array(tokens).fill(-1) },
    pregateLogits: () => logits,
  };
  const seconds: number[] = [];
  for (let repeat = 0; repeat < repeats; repeat++) {
    let spent = 0;
    for (let layer = 0; layer < layers; layer++) {
      imitateLogits(trace, layer, logits, tokens, experts, topK);
      const started = threadSeconds();
      predictor.predict({ ...context, layer }, needs);
      slices.solve(needs, tokens);
      spent += threadSeconds() - started;
    }
    seconds.push(spent / layers / tokens);
  }
  return undisturbed(seconds);
}

/** The chosen experts stand out from the others, which differ a little, as a router's logits do. */
function imitateLogits(
  { experts: ids, model }: RoutingTrace,
  layer: number,
  logits: Float32Array,
  tokens: number,
  experts: number,
  topK: number,
): void {
  for (let token = 0; token < tokens; token++) {
    const row = token * experts;
    for (let expert = 0; expert < experts; expert++) logits[row + expert] = -1 - ((expert * 7 + token) % 13) / 13;
    const from = (token * model.layers + layer) * topK;
    for (let i = 0; i < topK; i++) logits[row + ids[from + i]!] = 1 - i / topK;
  }
}
