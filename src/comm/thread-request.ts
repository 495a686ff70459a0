/**
 * The collectives of the `threads` transport as requests that advance step by step. Each has posted a descriptor
 * when it is made; from then on peers read its payload, straight from the rank's memory or, when it is small, from
 * the descriptor.
 */
import type { CommunicationRequest } from './communicator.ts';
import { DescriptorWord, inlineBytes, rounds } from './control-area.ts';
import { describeMismatch, operations, type Operation, type OperationAtRank } from './operations.ts';
import type { ThreadChannel } from './thread-channel.ts';
import type { Progressing } from './thread-endpoint.ts';

/** Payloads of at least this many bytes wake the peers at once, so that early ranks copy while late ones compute. */
const earlyBytes = 65536;
const noPayload: Uint8Array = new Uint8Array(0);

export interface ThreadRequestOptions {
  operation: Operation;
  /** What peers may read. */
  payload?: ArrayBufferView;
  /** A number all ranks must give alike. */
  parameter?: number;
}

/** A collective that needs nothing but every rank's descriptor; the others build on it. */
export class ThreadRequest implements CommunicationRequest, Progressing {
  protected readonly channel: ThreadChannel;
  protected readonly sequence: number;
  protected readonly operation: Operation;
  /** Word index of this rank's descriptor. */
  protected readonly descriptor: number;
  private readonly target: number;
  private readonly parameter: number;
  /** Peers need nothing from this rank's memory. */
  private readonly inline: boolean;
  /** [rounds][size] when each peer's message has arrived, NaN before its first bit has; undefined without a link. */
  private readonly arrived: Float64Array | undefined;
  private finished = false;
  private complete = false;

  constructor(channel: ThreadChannel, options: ThreadRequestOptions) {
    const { operation, payload = noPayload, parameter = 0 } = options;
    const sequence = channel.claim();
    this.channel = channel;
    this.sequence = sequence;
    this.target = channel.targetOf(sequence);
    this.operation = operation;
    this.parameter = parameter;
    this.inline = payload.byteLength <= inlineBytes;
    this.descriptor = channel.descriptorAt(sequence, channel.rank);
    this.arrived = channel.endpoint.link && new Float64Array(rounds * channel.size).fill(Number.NaN);
    const { words, layout } = channel;
    words[this.descriptor + DescriptorWord.operation] = operations.indexOf(operation);
    words[this.descriptor + DescriptorWord.parameter] = parameter;
    words[this.descriptor + DescriptorWord.length] = payload.byteLength;
    words[this.descriptor + DescriptorWord.inline] = this.inline ? 1 : 0;
    if (this.inline) {
      const at = (this.descriptor + layout.inlinePayload) * words.BYTES_PER_ELEMENT;
      channel.bytes.set(new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength), at);
    } else {
      words[this.descriptor + DescriptorWord.address] = payload.byteOffset;
      channel.wantEnd(sequence);
    }
  }

  /** Posts the descriptor, which the constructors have filled in. */
  start(): this {
    this.announce(0);
    this.channel.publish(this.sequence, this.payloadLength(this.channel.rank) >= earlyBytes);
    this.channel.endpoint.track(this);
    return this;
  }

  test(): boolean {
    if (!this.complete) this.channel.endpoint.progress();
    return this.complete;
  }

  wait(): void {
    if (!this.complete) this.channel.endpoint.sleepUntil(() => this.complete);
  }

  advance(): boolean {
    if (!this.finished && this.proceed()) {
      this.finished = true;
      this.channel.publishFinished(this.sequence);
    }
    this.complete = this.finished && (this.inline || this.channel.allFinished(this.sequence, this.target));
    return this.complete;
  }

  /** Does what can be done now; true once this rank needs nothing more from its peers. */
  protected proceed(): boolean {
    return this.allAgree();
  }

  /** Payload that a peer is sent in a round of messages, where links are emulated. */
  protected bytesTo(_peer: number, _round: number): number {
    return 0;
  }

  /** Sends every peer across the link its message of a round; before it is published. */
  protected announce(round: number): void {
    const { channel, sequence } = this;
    const { link } = channel.endpoint;
    if (link === undefined) return;
    // Each rank begins with its neighbour, so that the ranks do not all send to the same one at the same time.
    for (let step = 1; step < channel.size; step++) {
      const peer = (channel.rank + step) % channel.size;
      if (!link.isOutside(channel.members[peer])) continue;
      const bytes = this.bytesTo(peer, round);
      channel.announce(sequence, round, peer, link.send(bytes), bytes);
    }
  }

  /** Whether the message of a peer that has published it is here; if not, a sleep will end when it is. */
  protected hasArrived(peer: number, round: number): boolean {
    const { channel, sequence, arrived } = this;
    const { link } = channel.endpoint;
    if (link === undefined || arrived === undefined || !link.isOutside(channel.members[peer])) return true;
    const now = link.now();
    const at = round * channel.size + peer;
    if (Number.isNaN(arrived[at])) {
      const firstBit = channel.announcedArrival(sequence, round, peer);
      if (now < firstBit) {
        channel.endpoint.wakeBy(firstBit);
        return false;
      }
      arrived[at] = link.receive(firstBit, channel.announcedBytes(sequence, round, peer));
    }
    if (now >= arrived[at]) return true;
    channel.endpoint.wakeBy(arrived[at]);
    return false;
  }

  /** The peer whose message was sent `step`th, 0 being this rank itself. */
  protected peerAt(step: number): number {
    return (this.channel.rank - step + this.channel.size) % this.channel.size;
  }

  /** Whether every rank's message is here; refuses ranks that are at another operation. */
  protected allAgree(): boolean {
    const { channel } = this;
    if (!channel.allArrived(this.sequence, this.target)) return false;
    let missing = 0;
    for (let step = 0; step < channel.size; step++) if (!this.hasArrived(this.peerAt(step), 0)) missing++;
    if (missing > 0) return false;
    for (let peer = 0; peer < channel.size; peer++) this.checkPeer(peer);
    return true;
  }

  /** Refuses a peer, which has posted, when it is at another operation. */
  protected checkPeer(peer: number): void {
    const { words } = this.channel;
    const at = this.channel.descriptorAt(this.sequence, peer);
    const operation = operations[words[at + DescriptorWord.operation]];
    const parameter = words[at + DescriptorWord.parameter];
    if (operation === this.operation && parameter === this.parameter) return;
    const atRank = (rank: number, name: Operation | undefined, value: number): OperationAtRank => ({
      rank,
      operation: name,
      parameter: name === 'broadcast' ? this.rankName(value) : value,
    });
    const theirs = atRank(this.rankName(peer), operation, parameter);
    this.refuse(describeMismatch(theirs, atRank(this.ownName, this.operation, this.parameter)));
  }

  /** Refuses a peer whose payload has not the length of this rank's. */
  protected checkLength(peer: number): void {
    const own = this.payloadLength(this.channel.rank);
    const theirs = this.payloadLength(peer);
    if (theirs === own) return;
    this.refuse(`${this.operation}: rank ${this.rankName(peer)} gives ${theirs} bytes, rank ${this.ownName} ${own}`);
  }

  protected payloadLength(peer: number): number {
    return this.channel.words[this.channel.descriptorAt(this.sequence, peer) + DescriptorWord.length] >>> 0;
  }

  protected isInline(peer: number): boolean {
    return this.channel.words[this.channel.descriptorAt(this.sequence, peer) + DescriptorWord.inline] === 1;
  }

  /** Byte address of a peer's payload, in its memory or, when inline, in the channel area. */
  protected payloadAddress(peer: number): number {
    const at = this.channel.descriptorAt(this.sequence, peer);
    if (this.isInline(peer)) return (at + this.channel.layout.inlinePayload) * Int32Array.BYTES_PER_ELEMENT;
    return this.channel.words[at + DescriptorWord.address] >>> 0;
  }

  /** Copies part of a peer's payload to a byte address in this rank's memory. */
  protected copyFrom(peer: number, offset: number, length: number, to: number): void {
    if (length === 0) return;
    const { endpoint, members, rank } = this.channel;
    const inline = this.isInline(peer);
    const from = this.payloadAddress(peer) + offset;
    if (peer === rank && from === to && !inline) return;
    const source = inline ? this.channel.bytes : endpoint.memoryBytes[members[peer]];
    endpoint.memoryBytes[endpoint.rank].set(source.subarray(from, from + length), to);
  }

  protected refuse(message: string): never {
    const { members, size, endpoint } = this.channel;
    const where = size === endpoint.size ? '' : ` (communicator of ranks ${members.join(', ')})`;
    return endpoint.refuse(message + where);
  }

  /** Rank in the group, the name a user knows. */
  protected rankName(peer: number): number {
    return this.channel.members[peer] ?? peer;
  }

  protected get ownName(): number {
    return this.channel.endpoint.rank;
  }
}
