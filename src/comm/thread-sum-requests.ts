/** Collectives of the `threads` transport that combine the payloads of all ranks. */
import { DescriptorWord, inlineBytes } from './control-area.ts';
import { shardLength, shardStart } from './shards.ts';
import type { ThreadChannel } from './thread-channel.ts';
import { ThreadRequest } from './thread-request.ts';

/** Sums part of every rank's payload, once all have posted. */
abstract class SumRequest extends ThreadRequest {
  /** into[at..at + length) = tree sum over ranks of floats start..start + length of their payloads. */
  protected sumShard(start: number, length: number, into: Float32Array, at: number): void {
    const { channel } = this;
    const sources: Float32Array[] = [];
    const offsets: number[] = [];
    for (let peer = 0; peer < channel.size; peer++) {
      const memory = channel.endpoint.memoryFloats[channel.members[peer]];
      sources.push(this.isInline(peer) ? channel.floats : memory);
      offsets.push(this.payloadAddress(peer) / Float32Array.BYTES_PER_ELEMENT + start);
    }
    channel.treeSum.sum(sources, offsets, length, into, at);
  }
}

export class ReduceScatterRequest extends SumRequest {
  private readonly counts: Int32Array;
  private readonly receive: Float32Array;

  constructor(channel: ThreadChannel, send: Float32Array, counts: Int32Array, receive: Float32Array) {
    super(channel, { operation: 'reduce-scatter', payload: send });
    channel.words.set(counts, this.descriptor + DescriptorWord.counts);
    this.counts = counts;
    this.receive = receive;
  }

  protected override bytesTo(peer: number): number {
    return this.counts[peer] * Float32Array.BYTES_PER_ELEMENT;
  }

  protected override proceed(): boolean {
    if (!this.allAgree()) return false;
    let start = 0;
    for (let rank = 0; rank < this.channel.rank; rank++) start += this.counts[rank];
    this.sumShard(start, this.counts[this.channel.rank], this.receive, 0);
    return true;
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    const at = this.channel.descriptorAt(this.sequence, peer) + DescriptorWord.counts;
    for (let rank = 0; rank < this.channel.size; rank++) {
      const theirs = this.channel.words[at + rank];
      if (theirs === this.counts[rank]) continue;
      this.refuse(
        `reduce-scatter: the shard of rank ${this.rankName(rank)} has ${theirs} floats on rank ` +
          `${this.rankName(peer)}, ${this.counts[rank]} on rank ${this.ownName}`,
      );
    }
  }
}

/** All-reduce of a payload that fits the descriptors: every rank sums the whole of it. */
export class InlineAllReduceRequest extends SumRequest {
  private readonly buffer: Float32Array;

  constructor(channel: ThreadChannel, buffer: Float32Array) {
    super(channel, { operation: 'all-reduce', payload: buffer });
    this.buffer = buffer;
  }

  protected override bytesTo(): number {
    return this.buffer.byteLength;
  }

  protected override proceed(): boolean {
    if (!this.allAgree()) return false;
    this.sumShard(0, this.buffer.length, this.buffer, 0);
    return true;
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    this.checkLength(peer);
  }
}

/**
 * All-reduce of a large payload, in place: each rank sums its own shard, then takes the others' from their buffers.
 * A rank writes its own shard while peers read only other shards, and a peer's shard once that peer has posted it
 * as reduced and so reads it no more.
 */
export class ShardedAllReduceRequest extends SumRequest {
  private readonly buffer: Float32Array;
  private readonly pulled: Uint8Array;
  private missing: number;
  private reduced = false;

  constructor(channel: ThreadChannel, buffer: Float32Array) {
    super(channel, { operation: 'all-reduce', payload: buffer });
    this.buffer = buffer;
    this.pulled = new Uint8Array(channel.size);
    this.pulled[channel.rank] = 1;
    this.missing = channel.size - 1;
  }

  /** A peer's shard to be summed, then this rank's summed one. */
  protected override bytesTo(peer: number, round: number): number {
    const { channel, buffer } = this;
    return shardLength(buffer.length, channel.size, round === 0 ? peer : channel.rank) * buffer.BYTES_PER_ELEMENT;
  }

  protected override proceed(): boolean {
    if (!this.reduced) {
      if (!this.allAgree()) return false;
      this.reduceShard();
    }
    return this.pullShards();
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    this.checkLength(peer);
  }

  private reduceShard(): void {
    const { channel, buffer } = this;
    const start = shardStart(buffer.length, channel.size, channel.rank);
    this.sumShard(start, shardLength(buffer.length, channel.size, channel.rank), buffer, start);
    this.reduced = true;
    this.announce(1);
    channel.publishReduced(this.sequence);
  }

  private pullShards(): boolean {
    const { channel, buffer, pulled } = this;
    for (let step = 1; step < channel.size; step++) {
      const peer = this.peerAt(step);
      if (pulled[peer] === 1 || !channel.hasReduced(this.sequence, peer) || !this.hasArrived(peer, 1)) continue;
      const start = shardStart(buffer.length, channel.size, peer) * buffer.BYTES_PER_ELEMENT;
      const length = shardLength(buffer.length, channel.size, peer) * buffer.BYTES_PER_ELEMENT;
      this.copyFrom(peer, start, length, buffer.byteOffset + start);
      pulled[peer] = 1;
      this.missing--;
    }
    return this.missing === 0;
  }
}

/** Elements of an all-reduce-maximum that one request can take. */
export const maximumElements: number = inlineBytes / Int32Array.BYTES_PER_ELEMENT;

/** Element-wise maximum of at most `maximumElements` integers, in place. */
export class MaximumRequest extends ThreadRequest {
  private readonly buffer: Int32Array;

  /** `buffer` is part of an array of `wholeLength` elements, on which the ranks must agree. */
  constructor(channel: ThreadChannel, buffer: Int32Array, wholeLength: number) {
    super(channel, { operation: 'all-reduce-maximum', payload: buffer, parameter: wholeLength });
    this.buffer = buffer;
  }

  protected override bytesTo(): number {
    return this.buffer.byteLength;
  }

  protected override proceed(): boolean {
    if (!this.allAgree()) return false;
    const { channel, buffer } = this;
    for (let peer = 0; peer < channel.size; peer++) {
      const at = this.payloadAddress(peer) / buffer.BYTES_PER_ELEMENT;
      for (let i = 0; i < buffer.length; i++) buffer[i] = Math.max(buffer[i], channel.words[at + i]);
    }
    return true;
  }
}

/** Learns every rank's (color, key). */
export class SplitRequest extends ThreadRequest {
  /** [size][color, key], once complete. */
  readonly choices: Int32Array;

  constructor(channel: ThreadChannel, color: number, key: number) {
    super(channel, { operation: 'split', payload: Int32Array.of(color, key) });
    this.choices = new Int32Array(2 * channel.size);
  }

  protected override bytesTo(): number {
    return 2 * Int32Array.BYTES_PER_ELEMENT;
  }

  protected override proceed(): boolean {
    if (!this.allAgree()) return false;
    const { channel, choices } = this;
    for (let peer = 0; peer < channel.size; peer++) {
      const at = this.payloadAddress(peer) / choices.BYTES_PER_ELEMENT;
      choices.set(channel.words.subarray(at, at + 2), 2 * peer);
    }
    return true;
  }
}
