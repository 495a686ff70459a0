import { tokenItems } from '../affinity-items.ts';
import { solveLayers } from '../layer-pool.ts';
import type { PlacementProblem, PlacementSolver } from '../solver.ts';

/** The paper's cross-entropy search (version 1) over the devices of token ids and experts, layer by layer. */
export const crossEntropySolver: PlacementSolver = {
  name: 'cross-entropy',
  heeds: [],
  async solve({ trace, devices, seed, threads, timeLimitSeconds, onProgress, signal }: PlacementProblem) {
    const { layers, experts } = trace.model;
    const owners = await solveLayers(
      'cross-entropy',
      (layer, budgetMs) => ({ layer, items: tokenItems(trace, layer), devices, seed, budgetMs }),
      { layers, threads, timeLimitSeconds, onProgress, signal },
    );
    const expertOwner = new Uint16Array(layers * experts);
    owners.forEach((owner, layer) => expertOwner.set(owner, layer * experts));
    return { expertOwner, notes: [] };
  },
};
