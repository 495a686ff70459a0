/** Collectives of the `threads` transport that copy segments from peers. */
import { DescriptorWord } from './control-area.ts';
import { describeSegment } from './operations.ts';
import type { ThreadChannel } from './thread-channel.ts';
import { ThreadRequest, type ThreadRequestOptions } from './thread-request.ts';

/** Pulls one segment from each peer as soon as that peer has posted. */
abstract class PullRequest extends ThreadRequest {
  private readonly pulled: Uint8Array;
  private missing: number;

  constructor(channel: ThreadChannel, options: ThreadRequestOptions) {
    super(channel, options);
    this.pulled = new Uint8Array(channel.size);
    this.missing = channel.size;
  }

  protected override proceed(): boolean {
    const { channel, sequence, pulled } = this;
    // Each rank begins with itself, so that the ranks do not all read the same memory at the same time.
    for (let step = 0; step < channel.size; step++) {
      const peer = this.peerAt(step);
      if (pulled[peer] === 1 || !channel.hasPosted(sequence, peer) || !this.hasArrived(peer, 0)) continue;
      this.checkPeer(peer);
      this.pull(peer);
      pulled[peer] = 1;
      this.missing--;
    }
    return this.missing === 0;
  }

  protected abstract pull(peer: number): void;
}

export class BroadcastRequest extends PullRequest {
  private readonly buffer: Uint8Array;
  private readonly root: number;

  constructor(channel: ThreadChannel, buffer: Uint8Array, root: number) {
    super(channel, { operation: 'broadcast', payload: buffer, parameter: root });
    this.buffer = buffer;
    this.root = root;
  }

  protected override bytesTo(): number {
    return this.channel.rank === this.root ? this.buffer.byteLength : 0;
  }

  protected pull(peer: number): void {
    this.checkLength(peer);
    if (peer === this.root) this.copyFrom(peer, 0, this.buffer.byteLength, this.buffer.byteOffset);
  }
}

export class AllGatherRequest extends PullRequest {
  private readonly receiveAddress: number;
  private readonly receiveCounts: Int32Array;

  constructor(channel: ThreadChannel, send: Uint8Array, receive: Uint8Array, receiveCounts: Int32Array) {
    super(channel, { operation: 'all-gather', payload: send });
    this.receiveAddress = receive.byteOffset;
    this.receiveCounts = receiveCounts;
  }

  protected override bytesTo(): number {
    return this.receiveCounts[this.channel.rank];
  }

  protected pull(peer: number): void {
    const expected = this.receiveCounts[peer];
    const given = this.payloadLength(peer);
    if (given !== expected) {
      this.refuse(
        `all-gather: rank ${this.rankName(peer)} sends ${given} bytes, rank ${this.ownName} expects ${expected}`,
      );
    }
    let address = this.receiveAddress;
    for (let rank = 0; rank < peer; rank++) address += this.receiveCounts[rank];
    this.copyFrom(peer, 0, given, address);
  }
}

export class AllToAllRequest extends PullRequest {
  private readonly receiveAddress: number;
  private readonly receiveCounts: Int32Array;
  private readonly receiveDisplacements: Int32Array;
  private readonly received: Int32Array | undefined;

  constructor(
    channel: ThreadChannel,
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
    received: Int32Array | undefined,
  ) {
    super(channel, { operation: 'all-to-all', payload: send, parameter: received === undefined ? 0 : 1 });
    channel.words.set(sendCounts, this.descriptor + DescriptorWord.counts);
    channel.words.set(sendDisplacements, this.descriptor + channel.layout.displacements);
    this.receiveAddress = receive.byteOffset;
    this.receiveCounts = receiveCounts;
    this.receiveDisplacements = receiveDisplacements;
    this.received = received;
  }

  protected override bytesTo(peer: number): number {
    return this.channel.words[this.descriptor + DescriptorWord.counts + peer];
  }

  protected pull(peer: number): void {
    const { words, layout, rank } = this.channel;
    const at = this.channel.descriptorAt(this.sequence, peer);
    const given = words[at + DescriptorWord.counts + rank];
    const expected = this.receiveCounts[peer];
    if (this.received === undefined ? given !== expected : given > expected) {
      this.refuse(describeSegment(this.rankName(peer), given, this.ownName, expected, this.received !== undefined));
    }
    if (this.received !== undefined) this.received[peer] = given;
    const offset = words[at + layout.displacements + rank];
    this.copyFrom(peer, offset, given, this.receiveAddress + this.receiveDisplacements[peer]);
  }
}
