import type { Communicator } from '../comm/communicator.ts';
import type { ExpertBank } from '../engine/expert-bank.ts';
import type { Kernels } from '../kernels/kernels.ts';
import type { PhaseClock } from '../timeline/phase-clock.ts';
import type { Collective } from './collective.ts';
import type { Ownership } from './ownership.ts';
import type { RoutingObserver } from './routing-observer.ts';

/** What every schedule of a rank shares. H = hidden size, k = experts per token. */
export interface ScheduleResources {
  kernels: Kernels;
  /** Views of the rank's memory. */
  floats: Float32Array;
  integers: Int32Array;
  bytes: Uint8Array;
  /** All ranks: expert parallelism. */
  world: Communicator;
  /** The ranks that split this data-parallel group's attention. */
  tensorGroup: Communicator;
  ownership: Ownership;
  experts: ExpertBank;
  observer: RoutingObserver;
  clock: PhaseClock;
  hiddenSize: number;
  topK: number;
  buffers: ScheduleBuffers;
}

/**
 * Byte offsets in the rank's memory. T = step tokens of the group, S = ceil(T / tp) largest slice, G = ranks, P = plan
 * devices, B = P / G. Sizes are worst cases, see engine/rank-buffers.ts.
 */
export interface ScheduleBuffers {
  /** [T, H] rows in shard order: sent by the reduce-scatter, received by the all-gather. */
  shuffled: number;
  /** [T] int32: token order of the shuffle. */
  order: number;
  /** [S, H] residual rows of this rank's slice. */
  residual: number;
  /** Normalised own rows [S, H], then the segments received from other ranks. */
  input: number;
  /** Segments sent to other ranks. */
  send: number;
  /** Rows computed for other ranks, on their way back. */
  returned: number;
  /** Rows that came back from other ranks. */
  result: number;
  /** [P, S, H] partial sums of own tokens, one block per plan device. */
  homePartials: number;
  /** [B, guest rows, H] partial sums of other ranks' tokens, one block per own device. */
  guestPartials: number;
  /** [S, k] int32 and f32: routing of own rows. */
  expertIds: number;
  expertWeights: number;
  /** [G, S * k] int32 and f32: own rows (or pairs) sent to each rank. */
  rowLists: number;
  weightLists: number;
  rowListEntries: number;
  /** [entries] int32, int32, f32: input row, target row and weight of each (row, expert) pair computed here. */
  workInputs: number;
  workTargets: number;
  workWeights: number;
  /** [G * max(2, most experts owned)] int32 each, for exchanges of sizes. */
  sizesSent: number;
  sizesReceived: number;
}

/** One layer's input: the same on every rank of the tensor group but for `attention`. */
export interface LayerInput {
  layer: number;
  /** T */
  tokens: number;
  /** [T] */
  tokenIds: Int32Array;
  /** [T] row of each token in the run's records; see RoutingObserver. */
  recordRows: Int32Array;
  /** Pointer [T, H]: the residual before attention in, the next layer's input out. */
  hidden: number;
  /** Pointer [T, H]: this rank's partial attention output (its heads' subtree); overwritten. */
  attention: number;
}

/**
 * A layer under way: yields every collective it has started and must see complete before it goes on, so that whoever drives it
 * may do other work meanwhile. Every rank yields the same collectives in the same order.
 */
export type LayerSteps<Result = void> = Generator<Collective, Result, void>;

/**
 * How one MoE layer moves tokens: from partial attention outputs to next-layer hidden rows on every rank of the tensor
 * group. The engine does not know which schedule runs; results are the same bits under each.
 */
export interface MoeSchedule {
  readonly name: string;
  layer(input: LayerInput): LayerSteps;
}
