import type { Communicator } from '../comm/communicator.ts';
import type { ExpertBank } from '../engine/expert-bank.ts';
import type { Kernels } from '../kernels/kernels.ts';
import type { PhaseClock } from '../timeline/phase-clock.ts';
import type { Collective } from './collective.ts';
import type { Ownership } from './ownership.ts';
import type { RoutingObserver } from './routing-observer.ts';
import type { SlicedTokens } from './token-slices.ts';

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
  /** Send hidden rows as compact rows (docs/compact-rows.md); `canCompact(hiddenSize)` only. */
  compactRows: boolean;
  buffers: ScheduleBuffers;
}

/**
 * Byte offsets in the rank's memory. T = step tokens of the group, S = ceil(T / tp) largest slice, G = ranks, P = plan
 * devices, B = P / G. Sizes are worst cases, see engine/rank-buffers.ts.
 */
export interface ScheduleBuffers {
  /** [T, H] rows as the all-gather delivers them, with what they bring along (a byte per tensor rank and row at most). */
  gathered: number;
  /** [T] int32: token order of the slices. */
  order: number;
  /** [S, H] this rank's share of the reduce-scatter. */
  reduced: number;
  /** [S, H] residual rows of this rank's slice; what they bring along lies in the [S, tp] bytes before. */
  residual: number;
  /** [S] int32: where those rows come from. */
  ownAddresses: number;
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

/** Pointer to the rows listed for a rank. */
export function rowList({ rowLists, rowListEntries }: ScheduleBuffers, rank: number): number {
  return rowLists + rank * rowListEntries * 4;
}

/** Takes rows of the next layer's input as they arrive: pointers [rows, H] and int32 [rows] (their tokens). */
export type RowReceiver = (source: number, tokens: number, rows: number) => void;

/** One layer's input: the same on every rank of the tensor group but for what pointers point to. */
export interface LayerInput extends SlicedTokens {
  layer: number;
  /** No layer follows. */
  last: boolean;
  /** [T] row of each token in the run's records; see RoutingObserver. */
  recordRows: Int32Array;
  /** Pointer [T] int32: byte address of each token's residual row; the schedule replaces them by the next layer's input. */
  addresses: number;
  /** Pointer [T, H]: with one tensor rank the residual rows, in place. */
  hidden: number;
  /** Pointer [T, H]: this rank's partial attention output (its heads' subtree), rows in `attentionOrder`; overwritten. */
  attention: number;
  /** Choose the next layer's slices as early as can be. */
  preparesSlices: boolean;
  /** Pieces the all-gather is cut into, and who takes their rows early. */
  pieces: number;
  onRows: RowReceiver | undefined;
  /** Exchange as few times as can be, whatever it takes in bytes; steps of at most S tokens, one data-parallel group. */
  oneShot: boolean;
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
  /** Asked before each layer: int32 pointer [T] to the order in which attention rows are wanted; undefined = token order. */
  attentionOrder(input: LayerInput): number | undefined;
  layer(input: LayerInput): LayerSteps;
}
