/**
 * What every transport shares: argument checks, traffic counting and "blocking = start, then wait". A transport
 * supplies the `begin...` methods, which may trust their arguments.
 */
import { SmoeError } from '../errors.ts';
import type { CommunicationRequest, Communicator, Purpose, TrafficCounters } from './communicator.ts';
import { shardLength } from './shards.ts';
import { checkBuffer, checkDisjoint, checkRoot, checkSegments, countsError, sumCounts } from './validate.ts';

export function emptyCounters(): TrafficCounters {
  return {
    bytes: { attention: 0, dispatch: 0, combine: 0, control: 0 },
    messages: { attention: 0, dispatch: 0, combine: 0, control: 0 },
    waitMs: 0,
  };
}

/** The buffer of a memory fit for `attachMemory`. */
export function sharedBufferOf(memory: WebAssembly.Memory): SharedArrayBuffer {
  const buffer: unknown = memory.buffer;
  if (buffer instanceof SharedArrayBuffer) return buffer;
  throw new SmoeError('COMM_MEMORY', 'the memory to attach is not shared', {
    hint: 'make it with { initial, maximum: initial, shared: true }',
  });
}

export abstract class BaseCommunicator implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly counters: TrafficCounters;
  abstract readonly transport: string;

  constructor(rank: number, size: number, counters: TrafficCounters) {
    this.rank = rank;
    this.size = size;
    this.counters = counters;
  }

  abstract attachMemory(memory: WebAssembly.Memory): void;
  abstract useMemory(memory: WebAssembly.Memory): void;
  abstract startBarrier(): CommunicationRequest;
  abstract split(color: number, key: number): Communicator;
  abstract abort(): void;

  /** The buffer in use, that every payload must lie in; undefined before `attachMemory`. */
  protected abstract attachedBuffer(): SharedArrayBuffer | undefined;
  /** Memories are attached, and taken in use, for all communicators of a rank at once. */
  protected assertRoot(rootSize: number): void {
    if (this.size === rootSize) return;
    throw new SmoeError('COMM_MEMORY', 'memories belong to the root communicator');
  }

  protected abstract beginBroadcast(buffer: Uint8Array, root: number): CommunicationRequest;
  protected abstract beginAllGather(
    send: Uint8Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
  ): CommunicationRequest;
  protected abstract beginAllToAll(
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
    received: Int32Array | undefined,
  ): CommunicationRequest;
  protected abstract beginReduceScatter(
    send: Float32Array,
    counts: Int32Array,
    receive: Float32Array,
  ): CommunicationRequest;
  protected abstract beginAllReduce(buffer: Float32Array): CommunicationRequest;
  protected abstract takeMaximum(buffer: Int32Array): void;

  barrier(): void {
    this.startBarrier().wait();
  }

  broadcast(buffer: Uint8Array, root: number, purpose: Purpose): void {
    this.startBroadcast(buffer, root, purpose).wait();
  }

  allGather(send: Uint8Array, receive: Uint8Array, receiveCounts: Int32Array, purpose: Purpose): void {
    this.startAllGather(send, receive, receiveCounts, purpose).wait();
  }

  allToAll(
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
    purpose: Purpose,
    received?: Int32Array,
  ): void {
    this.startAllToAll(
      send,
      sendCounts,
      sendDisplacements,
      receive,
      receiveCounts,
      receiveDisplacements,
      purpose,
      received,
    ).wait();
  }

  reduceScatter(send: Float32Array, counts: Int32Array, receive: Float32Array, purpose: Purpose): void {
    this.startReduceScatter(send, counts, receive, purpose).wait();
  }

  allReduce(buffer: Float32Array, purpose: Purpose): void {
    this.startAllReduce(buffer, purpose).wait();
  }

  allReduceMaximum(buffer: Int32Array, purpose: Purpose): void {
    checkBuffer(buffer, this.attachedBuffer(), 'the all-reduce-maximum buffer');
    this.countToAll(purpose, buffer.byteLength);
    this.takeMaximum(buffer);
  }

  startBroadcast(buffer: Uint8Array, root: number, purpose: Purpose): CommunicationRequest {
    checkRoot(root, this.size);
    checkBuffer(buffer, this.attachedBuffer(), 'the broadcast buffer');
    if (root === this.rank) this.countToAll(purpose, buffer.byteLength);
    return this.beginBroadcast(buffer, root);
  }

  startAllGather(
    send: Uint8Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    purpose: Purpose,
  ): CommunicationRequest {
    checkBuffer(send, this.attachedBuffer(), 'the all-gather send buffer');
    checkBuffer(receive, this.attachedBuffer(), 'the all-gather receive buffer');
    const total = sumCounts(receiveCounts, this.size, 'all-gather receiveCounts');
    if (total > receive.byteLength) {
      throw countsError(`all-gather of ${total} bytes does not fit a receive buffer of ${receive.byteLength}`);
    }
    if (receiveCounts[this.rank] !== send.byteLength) {
      throw countsError(
        `all-gather receiveCounts[${this.rank}] is ${receiveCounts[this.rank]}, but this rank sends ${send.byteLength}`,
      );
    }
    let ownStart = receive.byteOffset;
    for (let rank = 0; rank < this.rank; rank++) ownStart += receiveCounts[rank];
    if (send.byteOffset !== ownStart) checkDisjoint(send, receive.subarray(0, total), 'all-gather');
    this.countToAll(purpose, send.byteLength);
    return this.beginAllGather(send, receive, receiveCounts);
  }

  startAllToAll(
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
    purpose: Purpose,
    received?: Int32Array,
  ): CommunicationRequest {
    checkBuffer(send, this.attachedBuffer(), 'the all-to-all send buffer');
    checkBuffer(receive, this.attachedBuffer(), 'the all-to-all receive buffer');
    checkSegments(sendCounts, sendDisplacements, send.byteLength, this.size, 'all-to-all send');
    checkSegments(receiveCounts, receiveDisplacements, receive.byteLength, this.size, 'all-to-all receive');
    checkDisjoint(send, receive, 'all-to-all');
    if (received !== undefined && received.length !== this.size) {
      throw countsError(`all-to-all received has ${received.length} entries for ${this.size} ranks`);
    }
    const own = sendCounts[this.rank];
    const expected = receiveCounts[this.rank];
    if (received === undefined ? own !== expected : own > expected) {
      throw countsError(
        `all-to-all: rank ${this.rank} sends itself ${own} bytes but expects ${received === undefined ? '' : 'at most '}${expected}`,
      );
    }
    this.countSegments(purpose, sendCounts, 1);
    if (received !== undefined) received[this.rank] = own;
    return this.beginAllToAll(
      send,
      sendCounts,
      sendDisplacements,
      receive,
      receiveCounts,
      receiveDisplacements,
      received,
    );
  }

  startReduceScatter(
    send: Float32Array,
    counts: Int32Array,
    receive: Float32Array,
    purpose: Purpose,
  ): CommunicationRequest {
    checkBuffer(send, this.attachedBuffer(), 'the reduce-scatter send buffer');
    checkBuffer(receive, this.attachedBuffer(), 'the reduce-scatter receive buffer');
    const total = sumCounts(counts, this.size, 'reduce-scatter counts');
    if (total !== send.length) {
      throw countsError(`reduce-scatter counts add up to ${total}, but this rank sends ${send.length} floats`);
    }
    if (receive.length < counts[this.rank]) {
      throw countsError(`reduce-scatter shard of ${counts[this.rank]} floats does not fit ${receive.length}`);
    }
    checkDisjoint(send, receive, 'reduce-scatter');
    this.countSegments(purpose, counts, Float32Array.BYTES_PER_ELEMENT);
    return this.beginReduceScatter(send, counts, receive);
  }

  startAllReduce(buffer: Float32Array, purpose: Purpose): CommunicationRequest {
    checkBuffer(buffer, this.attachedBuffer(), 'the all-reduce buffer');
    for (let rank = 0; rank < this.size; rank++) {
      if (rank === this.rank) continue;
      this.count(purpose, shardLength(buffer.length, this.size, rank) * buffer.BYTES_PER_ELEMENT, 1);
    }
    this.countToAll(purpose, shardLength(buffer.length, this.size, this.rank) * buffer.BYTES_PER_ELEMENT);
    return this.beginAllReduce(buffer);
  }

  /** The same `bytes` to every other rank. */
  private countToAll(purpose: Purpose, bytes: number): void {
    this.count(purpose, bytes, this.size - 1);
  }

  /** `counts[r]` elements to every other rank r. */
  private countSegments(purpose: Purpose, counts: Int32Array, bytesPerElement: number): void {
    for (let rank = 0; rank < this.size; rank++) {
      if (rank !== this.rank) this.count(purpose, counts[rank] * bytesPerElement, 1);
    }
  }

  /** `messages` messages of `bytes` each; empty ones are not sent. */
  private count(purpose: Purpose, bytes: number, messages: number): void {
    if (bytes === 0) return;
    this.counters.bytes[purpose] += bytes * messages;
    this.counters.messages[purpose] += messages;
  }
}
