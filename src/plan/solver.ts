import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { DeviceLayout } from './device-layout.ts';

/** What a solver is given: recorded routing and the shape of the wanted placement. P = devices, L = layers, N = experts. */
export interface PlacementProblem {
  trace: RoutingTrace;
  /** P, at most the number of experts. */
  devices: number;
  /** Equal seeds give equal placements, unless a time limit cuts the search short. */
  seed: number;
  /** Bound on the largest device's routed pairs / mean (each over its speed), per layer, on this trace. */
  maximumImbalance: number;
  /** PLAN_INFEASIBLE when no placement within the bound is found; otherwise the most balanced one becomes the bound, with a note. */
  strictImbalance?: boolean;
  /** Nodes, prices, memory and speeds of the devices; even devices of one node by default. */
  layout?: DeviceLayout;
  /** Copies of foreign experts each device holds, per layer. */
  replicasPerDevice?: number;
  /** Blocks of consecutive expert ids that group-limited routing picks from, kept whole on a device or node when asked. */
  expertGroups?: number;
  keepGroupsOn?: 'device' | 'node';
  /** [L][N] placement in force; moving one expert must save `movePrice` remote devices per token of its layer. */
  start?: Uint16Array;
  movePrice?: number;
  /** The best placement found by then is returned. */
  timeLimitSeconds?: number;
  /** Worker threads for layers; by default one per core. */
  threads?: number;
  /** Called after each finished layer. */
  onProgress?: ((finishedLayers: number, layers: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface Placement {
  /** [L][N] owner device. */
  expertOwner: Uint16Array;
  /** [L][P] expert ids copied to a device, ascending; none when left out. */
  replicas?: number[][][];
  /** For people: bounds that had to be relaxed and the like. */
  notes: string[];
}

/** What a caller can ask for beyond devices, of which published methods know little. */
export const placementWishes = ['replicas', 'cluster', 'expert groups', 'start', 'maximum imbalance'] as const;
export type PlacementWish = (typeof placementWishes)[number];

/** A method that groups experts onto devices. One file each under solvers/, listed in solvers/index.ts. */
export interface PlacementSolver {
  readonly name: string;
  /** Wishes it takes into account; a plan's notes name the others that were asked for. */
  readonly heeds: readonly PlacementWish[];
  /** Whether a plan falls back to contiguous layers where those are cheaper on held-out requests. */
  readonly fallsBack?: boolean;
  solve(problem: PlacementProblem): Promise<Placement>;
}
