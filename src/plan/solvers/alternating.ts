import { tokenItems } from '../affinity-items.ts';
import { solveLayers } from '../layer-pool.ts';
import { collectExpertSets } from '../objective.ts';
import type { PlacementProblem, PlacementSolver } from '../solver.ts';
import { coOccurrence } from './starts.ts';

/**
 * The paper's alternating placement (version 5, Algorithm 1), layer by layer. What it clusters beside experts are token ids where they
 * are known, requests otherwise: a request's mean over its tokens says much less about any one of them.
 */
export const alternatingSolver: PlacementSolver = {
  name: 'alternating',
  heeds: [],
  async solve({ trace, devices, seed, threads, timeLimitSeconds, onProgress, signal }: PlacementProblem) {
    const { layers, experts } = trace.model;
    const owners = await solveLayers(
      'alternating',
      (layer, budgetMs) => ({
        layer,
        items: tokenItems(trace, layer),
        together: coOccurrence(collectExpertSets(trace, layer)),
        devices,
        seed,
        budgetMs,
      }),
      { layers, threads, timeLimitSeconds, onProgress, signal },
    );
    const expertOwner = new Uint16Array(layers * experts);
    owners.forEach((owner, layer) => expertOwner.set(owner, layer * experts));
    return { expertOwner, notes: [] };
  },
};
