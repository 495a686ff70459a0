/**
 * Collectives between the ranks of one run. Knows nothing of models, plans or schedules.
 *
 * A rank is a dedicated worker or process, so every call may block. All ranks of a communicator call the
 * same collectives in the same order. Counts and displacements are in BYTES for byte collectives and in
 * ELEMENTS for float sums.
 *
 * Ranks that disagree on an operation, its root or its counts get COMM_MISMATCH, all of them; wrong arguments of one rank
 * throw COMM_COUNTS, COMM_BUFFER or COMM_ROOT before anything is started or counted. Traffic is counted at the start.
 * Send and receive buffers must not overlap, but for the in-place all-gather.
 *
 * Sums are bit-reproducible: element i of the result is the balanced binary tree over ranks,
 * ((r0 + r1) + (r2 + r3)) + ..., in float32, whatever the transport (docs/bit-identity.md). A size that is no
 * power of two pairs neighbours level by level, an unpaired last node moves up unchanged.
 */

/** What a payload is for; counters are kept per purpose. `control` = counts, sampled ids, agreements. */
export type Purpose = 'attention' | 'dispatch' | 'combine' | 'control';
export const purposes: readonly Purpose[] = ['attention', 'dispatch', 'combine', 'control'];

/** Payload this rank handed to OTHER ranks: bytes, and point-to-point messages with non-empty payload. */
export interface TrafficCounters {
  bytes: Record<Purpose, number>;
  messages: Record<Purpose, number>;
  /**
   * Milliseconds inside blocking collectives and `wait`, from the first look to completion: sleeping, and the copying and
   * summing done there. Starting or testing a request is not counted unless it has to block.
   */
  waitMs: number;
}

/**
 * A non-blocking collective under way. Its buffers, counts and displacements must not be touched until `wait` returns or
 * `test` is true. Any `test` or `wait` advances all requests of the rank; requests may be waited for in any order, those
 * never waited for included.
 */
export interface CommunicationRequest {
  /** Makes progress without blocking; true once complete. */
  test(): boolean;
  wait(): void;
}

export interface Communicator {
  readonly rank: number;
  readonly size: number;
  /** 'threads', 'mpi', ... */
  readonly transport: string;
  /** Shared with every communicator split from the same root. */
  readonly counters: TrafficCounters;

  /**
   * Collective over all ranks, on the root communicator, before any payload: from then on every buffer given to a
   * collective must be a view of this rank's own `memory` (shared, fixed size), which peers may read directly. More than one may be
   * attached, one after the other; the latest is in use. COMM_MEMORY for one that is attached already.
   */
  attachMemory(memory: WebAssembly.Memory): void;
  /**
   * Takes an attached memory in use, on the root communicator. All ranks do so between the same two collectives, with the memories that they
   * attached together; nothing is sent. COMM_MEMORY while a request of this rank is under way, and for a memory not attached.
   */
  useMemory(memory: WebAssembly.Memory): void;
  barrier(): void;
  /** Root's bytes to every rank, counted at the root as size - 1 messages. */
  broadcast(buffer: Uint8Array, root: number, purpose: Purpose): void;
  /**
   * Every rank's `send` to all; rank r's bytes land at the displacement sum(receiveCounts[0..r)).
   * `receiveCounts[rank]` must equal `send.byteLength`. `send` may be the rank's own part of `receive` (in place).
   * Counted: send.byteLength * (size - 1).
   */
  allGather(send: Uint8Array, receive: Uint8Array, receiveCounts: Int32Array, purpose: Purpose): void;
  /**
   * Personalised exchange with real splits. Segment for rank r starts at sendDisplacements[r].
   * Every rank must already know its receiveCounts. The own segment is copied and not counted.
   *
   * Or it need not, when all ranks give `received` [size]: then `receiveCounts` are the most bytes there is room for, and what
   * came from each rank is in `received` on completion. A segment of more than its receiver's limit is COMM_MISMATCH.
   */
  allToAll(
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
    purpose: Purpose,
    received?: Int32Array,
  ): void;
  /**
   * Sum over ranks of `send` (all shards, in rank order, `counts[r]` floats for rank r); this rank keeps its shard.
   * Counted: 4 * (send.length - counts[rank]).
   */
  reduceScatter(send: Float32Array, counts: Int32Array, receive: Float32Array, purpose: Purpose): void;
  /**
   * In-place sum, as a reduce-scatter and an all-gather over near-equal shards (first `length % size` shards one
   * element longer). Counted: 4 * (length - shard + shard * (size - 1)) for this rank's shard.
   */
  allReduce(buffer: Float32Array, purpose: Purpose): void;
  /** In-place element-wise maximum of small integer arrays. Counted: 4 * length * (size - 1). */
  allReduceMaximum(buffer: Int32Array, purpose: Purpose): void;

  /**
   * Non-blocking twins; same buffers, same counters, same order rules. A transport may bound how many are in flight: a
   * start beyond that blocks until the oldest completes.
   */
  startAllGather(
    send: Uint8Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    purpose: Purpose,
  ): CommunicationRequest;
  startAllToAll(
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
    purpose: Purpose,
    received?: Int32Array,
  ): CommunicationRequest;
  startReduceScatter(
    send: Float32Array,
    counts: Int32Array,
    receive: Float32Array,
    purpose: Purpose,
  ): CommunicationRequest;
  startAllReduce(buffer: Float32Array, purpose: Purpose): CommunicationRequest;
  startBroadcast(buffer: Uint8Array, root: number, purpose: Purpose): CommunicationRequest;
  startBarrier(): CommunicationRequest;

  /** Collective: ranks with the same colour form a communicator, ordered by (key, rank). */
  split(color: number, key: number): Communicator;
  /**
   * Wakes every rank of the root communicator, whatever it waits for: from then on their calls, and this rank's, throw
   * COMM_ABORTED. Never throws.
   */
  abort(): void;
}
