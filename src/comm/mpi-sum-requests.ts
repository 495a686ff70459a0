/** Collectives of the `mpi` transport that combine the payloads of all ranks. */
import { MessageKind, type MpiChannel } from './mpi-channel.ts';
import type { Region } from './mpi-library.ts';
import { MpiRequest, type MpiRequestOptions } from './mpi-request.ts';
import { shardLength, shardStart } from './shards.ts';

const wordBytes = 4;

/** Every rank's piece arrives in scratch memory, to be combined with this rank's own. */
abstract class CombiningRequest extends MpiRequest {
  /** Pieces by sender, each in its own part. */
  protected readonly pieces: Region;
  /** Words of a part. */
  protected readonly pieceLength: number;

  constructor(channel: MpiChannel, options: MpiRequestOptions, pieceLength: number) {
    super(channel, options);
    this.pieceLength = pieceLength;
    this.pieces = channel.endpoint.scratch.take(channel.size * pieceLength * wordBytes);
    for (let peer = 0; peer < channel.size; peer++) {
      this.expect(peer, this.pieces, peer * pieceLength * wordBytes, pieceLength * wordBytes);
    }
  }

  protected override proceed(): boolean {
    this.combine();
    this.channel.endpoint.scratch.giveBack(this.pieces);
    return true;
  }

  protected abstract combine(): void;

  /** into[at..] = tree sum over ranks; this rank's piece is floats ownStart.. of `own`. */
  protected sumPieces(own: Float32Array, ownStart: number, into: Float32Array, at: number): void {
    const { channel, pieces, pieceLength } = this;
    const sources: Float32Array[] = [];
    const offsets: number[] = [];
    for (let rank = 0; rank < channel.size; rank++) {
      const isOwn = rank === channel.rank;
      sources.push(isOwn ? own : pieces.floats);
      offsets.push(isOwn ? ownStart : rank * pieceLength);
    }
    channel.treeSum.sum(sources, offsets, pieceLength, into, at);
  }
}

export class MpiReduceScatterRequest extends CombiningRequest {
  private readonly own: Float32Array;
  private readonly ownStart: number;
  private readonly into: Float32Array;

  constructor(channel: MpiChannel, memory: Region, send: Float32Array, counts: Int32Array, receive: Float32Array) {
    super(channel, { operation: 'reduce-scatter', counts }, counts[channel.rank]);
    let start = 0;
    let ownStart = 0;
    for (let peer = 0; peer < channel.size; peer++) {
      if (peer === channel.rank) ownStart = start;
      this.give(peer, memory, send.byteOffset + start * wordBytes, counts[peer] * wordBytes);
      start += counts[peer];
    }
    this.own = send;
    this.ownStart = ownStart;
    this.into = receive;
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    this.checkCounts(peer);
  }

  protected combine(): void {
    this.sumPieces(this.own, this.ownStart, this.into, 0);
  }
}

/**
 * All-reduce of a payload so small that its shards would be next to nothing: every rank sums the whole of it. It is counted
 * like any other all-reduce though slightly more is sent, so keep it for what a step sends but once.
 */
export class MpiWholeAllReduceRequest extends CombiningRequest {
  private readonly buffer: Float32Array;

  constructor(channel: MpiChannel, memory: Region, buffer: Float32Array) {
    super(channel, { operation: 'all-reduce', length: buffer.byteLength }, buffer.length);
    for (let peer = 0; peer < channel.size; peer++) this.give(peer, memory, buffer.byteOffset, buffer.byteLength);
    this.buffer = buffer;
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    this.checkLength(peer);
  }

  protected combine(): void {
    this.sumPieces(this.buffer, 0, this.buffer, 0);
  }
}

/** All-reduce in place: each rank sums its own shard, then sends it to all. */
export class MpiShardedAllReduceRequest extends CombiningRequest {
  private readonly memory: Region;
  private readonly buffer: Float32Array;
  private reduced = false;

  constructor(channel: MpiChannel, memory: Region, buffer: Float32Array) {
    const { size, rank } = channel;
    super(channel, { operation: 'all-reduce', length: buffer.byteLength }, shardLength(buffer.length, size, rank));
    for (let peer = 0; peer < size; peer++) {
      const start = shardStart(buffer.length, size, peer);
      this.give(
        peer,
        memory,
        buffer.byteOffset + start * wordBytes,
        shardLength(buffer.length, size, peer) * wordBytes,
      );
    }
    this.memory = memory;
    this.buffer = buffer;
  }

  /** This rank's other shards have all been sent when it gets here, so that results may replace them. */
  protected override proceed(): boolean {
    if (this.reduced) return true;
    super.proceed();
    this.reduced = true;
    const { channel, slot, memory, buffer } = this;
    const { size, rank } = channel;
    const address = memory.address + buffer.byteOffset;
    const ownStart = shardStart(buffer.length, size, rank) * wordBytes;
    for (let step = 1; step < size; step++) {
      const peer = (rank + step) % size;
      const start = shardStart(buffer.length, size, peer) * wordBytes;
      slot.receive(peer, MessageKind.result, address + start, shardLength(buffer.length, size, peer) * wordBytes);
      slot.send(peer, MessageKind.result, address + ownStart, this.pieceLength * wordBytes);
    }
    return false;
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    this.checkLength(peer);
  }

  protected combine(): void {
    const start = shardStart(this.buffer.length, this.channel.size, this.channel.rank);
    this.sumPieces(this.buffer, start, this.buffer, start);
  }
}

/** Element-wise maximum of integers, in place. */
export class MpiMaximumRequest extends CombiningRequest {
  private readonly buffer: Int32Array;

  constructor(channel: MpiChannel, memory: Region, buffer: Int32Array) {
    super(channel, { operation: 'all-reduce-maximum', parameter: buffer.length }, buffer.length);
    for (let peer = 0; peer < channel.size; peer++) this.give(peer, memory, buffer.byteOffset, buffer.byteLength);
    this.buffer = buffer;
  }

  protected combine(): void {
    const { channel, pieces, pieceLength, buffer } = this;
    for (let peer = 0; peer < channel.size; peer++) {
      if (peer === channel.rank) continue;
      const at = peer * pieceLength;
      for (let i = 0; i < pieceLength; i++) buffer[i] = Math.max(buffer[i], pieces.integers[at + i]);
    }
  }
}

/** Learns every rank's (color, key). */
export class MpiSplitRequest extends CombiningRequest {
  /** [size][color, key], once complete. */
  readonly choices: Int32Array;
  private readonly own: Region;

  constructor(channel: MpiChannel, color: number, key: number) {
    super(channel, { operation: 'split' }, 2);
    this.choices = new Int32Array(2 * channel.size);
    this.choices.set([color, key], 2 * channel.rank);
    this.own = channel.endpoint.library.allocate(8);
    this.own.integers.set([color, key]);
    for (let peer = 0; peer < channel.size; peer++) this.give(peer, this.own, 0, 8);
  }

  protected combine(): void {
    const { channel, choices, pieces } = this;
    for (let peer = 0; peer < channel.size; peer++) {
      if (peer !== channel.rank) choices.set(pieces.integers.subarray(2 * peer, 2 * peer + 2), 2 * peer);
    }
  }
}
