import { Kernels } from '../kernels/kernels.ts';
import type { Plan } from '../plan/plan.ts';
import { BalancedSlices } from '../predict/slices.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { threadSeconds } from './thread-time.ts';
import { undisturbed } from './undisturbed.ts';

const repeats = 7;

/**
 * Seconds per token of a tensor group and layer of what `speculative` does on each of its ranks before tokens move, the router's
 * matrix product left out: needs of the rank's own tokens from logits that single out their true experts, and balanced slices
 * of all tokens.
 *
 * @param plan over as many devices as there are ranks
 */
export function measurePrediction(trace: RoutingTrace, plan: Plan, ranks: number, stepTokens: number): number {
  const { layers, experts, topK, expertOwner } = plan;
  const tokens = Math.min(stepTokens, trace.length);
  const slices = new BalancedSlices(tokens, ranks);
  const logitsAt = Kernels.reservedBytes;
  const ownersAt = logitsAt + tokens * experts * 4;
  const scratchAt = ownersAt + Math.ceil(experts / 2) * 4;
  const heldAt = scratchAt + (topK + 1 + ranks * (ranks + 1)) * 4;
  const needsAt = heldAt + Math.ceil((ranks * experts) / 4) * 4;
  const pages = Math.ceil((needsAt + tokens * ranks) / 65536) + 1;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const kernels = new Kernels(memory);
  const logits = new Float32Array(memory.buffer, logitsAt, tokens * experts);
  const owners = new Uint16Array(memory.buffer, ownersAt, experts);
  const needs = new Uint8Array(memory.buffer, needsAt, tokens * ranks);
  const held = new Uint8Array(memory.buffer, heldAt, ranks * experts);
  const placement = { owners: ownersAt, ranks, held: heldAt, homes: ranks, scale: 255 };
  const needsOf = (rows: number): void =>
    kernels.routeAhead(logitsAt, rows, experts, topK, 1, placement, scratchAt, needsAt);
  const seconds: number[] = [];
  for (let repeat = 0; repeat < repeats; repeat++) {
    let spent = 0;
    for (let layer = 0; layer < layers; layer++) {
      imitateLogits(trace, layer, logits, tokens, experts, topK);
      owners.set(expertOwner.subarray(layer * experts, (layer + 1) * experts));
      held.fill(0);
      owners.forEach((owner, expert) => (held[owner * experts + expert] = 1));
      needsOf(tokens);
      const started = threadSeconds();
      needsOf(Math.ceil(tokens / ranks));
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
