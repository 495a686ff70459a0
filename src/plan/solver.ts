import type { RoutingTrace } from '../trace/routing-trace.ts';

/** What a solver is given: recorded routing and the shape of the wanted placement. */
export interface PlacementProblem {
  trace: RoutingTrace;
  /** P, at most the number of experts. */
  devices: number;
  /** Equal seeds give equal placements. */
  seed: number;
  /** Hard bound on the largest device's routed pairs / mean, per layer, on this trace. */
  maximumImbalance: number;
  /** Called after each finished layer. */
  onProgress?: ((finishedLayers: number, layers: number) => void) | undefined;
}

export interface Placement {
  /** [L][N] owner device; device sizes within a layer differ by at most one. */
  expertOwner: Uint16Array;
  /** For people: bounds that had to be relaxed and the like. */
  notes: string[];
}

/** A method that groups experts onto devices. One file each under solvers/, listed in solvers/index.ts. */
export interface PlacementSolver {
  readonly name: string;
  solve(problem: PlacementProblem): Promise<Placement>;
}
