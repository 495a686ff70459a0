import type { PlacementSolver } from '../solver.ts';
import { alternatingSolver } from './alternating.ts';
import { contiguousSolver } from './contiguous.ts';
import { crossEntropySolver } from './cross-entropy.ts';
import { eplbSolver } from './eplb.ts';
import { exflowSolver } from './exflow.ts';
import { hypergraphSolver } from './hypergraph.ts';

/** Every solver by name; adding one adds a line here. */
export const solvers: Readonly<Record<string, PlacementSolver>> = {
  hypergraph: hypergraphSolver,
  contiguous: contiguousSolver,
  eplb: eplbSolver,
  exflow: exflowSolver,
  alternating: alternatingSolver,
  'cross-entropy': crossEntropySolver,
};

export const defaultSolver = 'hypergraph';
