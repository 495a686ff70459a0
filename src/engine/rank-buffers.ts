import { Kernels } from '../kernels/kernels.ts';
import { ThreadedKernels } from '../kernels/threaded-kernels.ts';
import type { ModelConfig } from '../model/config.ts';
import { roundUp } from '../schedule/alignment.ts';
import { longestSegment } from '../schedule/row-segments.ts';
import { longestCompactSegment } from '../schedule/dispatch-segments.ts';
import type { Ownership } from '../schedule/ownership.ts';
import type { ScheduleBuffers } from '../schedule/schedule.ts';
import type { Arena } from './arena.ts';
import { exchangeScratchBytes } from './exchange-choices.ts';
import { expertChunkRows, type ExpertBankBuffers } from './expert-bank.ts';
import { headTreeLeaves, type Partition } from './partition.ts';

/** Scratch of the transformer outside the MoE layer. T = step tokens; byte offsets. */
export interface TransformerBuffers {
  /** [T, H] embedded rows (with one tensor rank the residual stream), and the normalised rows attention reads. */
  hidden: number;
  normalized: number;
  /** [T, *] projections; queries and keys hold all heads when normalised over the full projection. */
  query: number;
  key: number;
  value: number;
  /** [T] int32 byte address of every token's residual row, wherever it arrived. */
  addresses: number;
  /** [S, H] and [S, *] normalised and projected rows of a piece that arrived early. */
  arrivedNormalized: number;
  arrived: number;
  /** [T, local heads * headDimension], in token order and in the slices' order. */
  context: number;
  orderedContext: number;
  /** [levels][T, H] partial sums of the head tree; the first is the attention output. */
  headSums: number[];
  /** Scratch of the attention kernel. */
  attention: number;
  /** [T] int32 */
  tokenIds: number;
  positions: number;
  logitsRows: number;
  /** [T, V] */
  logits: number;
  /** Agreement of sampled tokens between tensor ranks: [tp][T] pairs of f32 value and int32 id. */
  candidatesSent: number;
  candidates: number;
  /** [ranks] int32 */
  activity: number;
  ropeCos: number;
  ropeSin: number;
}

export interface RankBuffers {
  transformer: TransformerBuffers;
  bank: ExpertBankBuffers;
  /** The second serves the second of two overlapping micro-batches: half a step's tokens. */
  schedules: [ScheduleBuffers, ScheduleBuffers];
  /** [exchangeScratchBytes] */
  exchangeScratch: number;
}

/**
 * Reserves a rank's activation and exchange buffers for the worst case: every token of every rank may be routed here. Pages
 * that are never touched cost no memory.
 *
 * @param stepTokens T, most tokens one data-parallel group computes per step
 * @param threads of the rank
 */
export function reserveBuffers(
  arena: Arena,
  config: ModelConfig,
  part: Partition,
  ownership: Ownership,
  stepTokens: number,
  threads: number = 1,
): RankBuffers {
  const { hiddenSize, headDimension, experts, expertWidth, vocabularySize } = config;
  const rowBytes = hiddenSize * 4;
  const allHeads = config.queryKeyNorm === 'full';
  const queryWidth = (allHeads ? config.heads : part.heads) * headDimension;
  const keyWidth = (allHeads ? config.keyValueHeads : part.keyValueHeads) * headDimension;
  const levels = 1 + Math.ceil(Math.log2(headTreeLeaves(config.heads))) + 1;
  const positions = config.maximumPositions;
  const slice = Math.ceil(stepTokens / part.tensorParallel);
  const transformer: TransformerBuffers = {
    hidden: arena.reserve(stepTokens * rowBytes),
    normalized: arena.reserve(stepTokens * rowBytes),
    query: arena.reserve(stepTokens * queryWidth * 4),
    key: arena.reserve(stepTokens * keyWidth * 4),
    value: arena.reserve(stepTokens * part.keyValueHeads * headDimension * 4),
    addresses: arena.reserve(stepTokens * 4),
    arrivedNormalized: arena.reserve(slice * rowBytes),
    arrived: arena.reserve(slice * Math.max(queryWidth, keyWidth) * 4),
    context: arena.reserve(stepTokens * part.heads * headDimension * 4),
    orderedContext: arena.reserve(stepTokens * part.heads * headDimension * 4),
    headSums: Array.from({ length: levels }, () => arena.reserve(stepTokens * rowBytes)),
    attention: arena.reserve(ThreadedKernels.attentionScratches(threads) * Kernels.attentionScratchBytes(positions)),
    tokenIds: arena.reserve(stepTokens * 4),
    positions: arena.reserve(stepTokens * 4),
    logitsRows: arena.reserve(stepTokens * 4),
    logits: arena.reserve(stepTokens * vocabularySize * 4),
    candidatesSent: arena.reserve(stepTokens * 8),
    candidates: arena.reserve(part.tensorParallel * stepTokens * 8),
    activity: arena.reserve((part.ranks + 1) * 4),
    ropeCos: arena.reserve(positions * headDimension * 2),
    ropeSin: arena.reserve(positions * headDimension * 2),
  };

  const bank: ExpertBankBuffers = {
    routerLogits: arena.reserve(slice * experts * 4),
    owners: arena.reserve(ownership.ownerDevice.length * 2),
    held: arena.reserve(ownership.ownerDevice.length * part.tensorParallel),
    aheadScratch: arena.reserve((config.topK + 1 + ownership.ranks * (part.tensorParallel + 1)) * 4),
    gathered: arena.reserve(expertChunkRows * rowBytes),
    gateUp: arena.reserve(expertChunkRows * 2 * expertWidth * 4),
    activated: arena.reserve(expertChunkRows * expertWidth * 4),
    output: arena.reserve(expertChunkRows * rowBytes),
  };

  return {
    transformer,
    bank,
    schedules: [
      reserveScheduleBuffers(arena, config, part, ownership, stepTokens),
      reserveScheduleBuffers(arena, config, part, ownership, Math.ceil(stepTokens / 2)),
    ],
    exchangeScratch: arena.reserve(exchangeScratchBytes(part.ranks)),
  };
}

function reserveScheduleBuffers(
  arena: Arena,
  { hiddenSize, topK }: ModelConfig,
  part: Partition,
  ownership: Ownership,
  stepTokens: number,
): ScheduleBuffers {
  const rowBytes = hiddenSize * 4;
  const slice = Math.ceil(stepTokens / part.tensorParallel);
  const peers = part.ranks - 1;
  const owned = ownership.largestOwned();
  // Rows to or from one peer: at most one per (token, expert held there); padded blocks reach the slice's size each.
  const exchangeRows = peers * slice * owned;
  const guestRows = peers * slice;
  const pairs = slice * topK + peers * slice * Math.min(topK, owned);
  // Deduplicated segments: rows plus routing (6 bytes a pair, 2 a row, 4 more), rounded up to whole rows per peer.
  const segmentRows = guestRows + peers * (Math.ceil((slice * (6 * topK + 2) + 4) / rowBytes) + 1);
  const sendRows = Math.max(exchangeRows, segmentRows);
  // Compact rows may take a byte more than plain ones; they are gathered from all of the tensor group.
  const compactBytes = Math.max(
    peers * longestCompactSegment(slice, topK, hiddenSize),
    part.tensorParallel * longestSegment(slice, hiddenSize, roundUp(slice * part.tensorParallel, 4) + 16),
  );
  return {
    gathered: arena.reserve(stepTokens * (rowBytes + part.tensorParallel) + part.tensorParallel * 4),
    order: arena.reserve(stepTokens * 4),
    reduced: arena.reserve(slice * rowBytes),
    residual: reserveBehind(arena, slice * part.tensorParallel + 4, slice * rowBytes),
    ownAddresses: arena.reserve(slice * 4),
    input: arena.reserve((slice + sendRows) * rowBytes),
    send: arena.reserve(Math.max(sendRows * rowBytes, compactBytes)),
    returned: arena.reserve(exchangeRows * rowBytes),
    result: arena.reserve(Math.max(exchangeRows * rowBytes, guestRows * rowBytes, compactBytes)),
    homePartials: arena.reserve(ownership.devices * slice * rowBytes),
    guestPartials: arena.reserve(ownership.devicesPerRank * guestRows * rowBytes),
    expertIds: arena.reserve(slice * topK * 4),
    expertWeights: arena.reserve(slice * topK * 4),
    rowLists: arena.reserve(Math.max(part.ranks * slice, exchangeRows) * 4),
    weightLists: arena.reserve(exchangeRows * 4),
    rowListEntries: slice,
    workInputs: arena.reserve(pairs * 4),
    workTargets: arena.reserve(pairs * 4),
    workWeights: arena.reserve(pairs * 4),
    sizesSent: arena.reserve(part.ranks * owned * 4),
    sizesReceived: arena.reserve(part.ranks * owned * 4),
  };
}

/** A region with `before` bytes of room in front of it. */
function reserveBehind(arena: Arena, before: number, bytes: number): number {
  const room = Math.ceil(before / 64) * 64;
  return arena.reserve(room + bytes) + room;
}
