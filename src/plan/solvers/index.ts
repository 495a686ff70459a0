import type { PlacementSolver } from '../solver.ts';
import { contiguousSolver } from './contiguous.ts';
import { hypergraphSolver } from './hypergraph.ts';

/** Every solver by name; adding one adds a line here. */
export const solvers: Readonly<Record<string, PlacementSolver>> = {
  hypergraph: hypergraphSolver,
  contiguous: contiguousSolver,
};

export const defaultSolver = 'hypergraph';
