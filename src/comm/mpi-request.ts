/**
 * The collectives of the `mpi` transport as requests that advance step by step. A request lays down which piece of a
 * region each peer gets and where each peer's piece goes; headers, small and large pieces are all the same to it.
 *
 * Every rank hears from every other one before its request completes, so ranks that disagree are found out by their
 * headers, whatever else has gone astray by then.
 */
import type { CommunicationRequest } from './communicator.ts';
import { HeaderWord, headerBytes, inlineBytes, MessageKind, type MpiChannel, type MpiSlot } from './mpi-channel.ts';
import type { Progressing } from './mpi-endpoint.ts';
import type { Region } from './mpi-library.ts';
import { describeMismatch, describeSegment, operations, type Operation, type OperationAtRank } from './operations.ts';

export interface MpiRequestOptions {
  operation: Operation;
  /** A number all ranks must give alike. */
  parameter?: number;
  /** Bytes of the whole payload. */
  length?: number;
  /** One number per rank that all ranks must give alike. */
  counts?: Int32Array;
  /** [size], when what is expected of a peer is a limit: its piece's length is written here. */
  received?: Int32Array | undefined;
}

/** A collective that needs nothing but every rank's header; the others build on it. */
export class MpiRequest implements CommunicationRequest, Progressing {
  protected readonly channel: MpiChannel;
  protected readonly slot: MpiSlot;
  protected readonly operation: Operation;
  private readonly parameter: number;
  private readonly length: number;
  private readonly counts: Int32Array | undefined;
  private readonly received: Int32Array | undefined;
  /** Pieces by peer: where they are, or go to, and how many bytes. */
  private readonly outgoing: (Piece | undefined)[] = [];
  private readonly incoming: (Piece | undefined)[] = [];
  private agreed = false;
  private complete = false;

  constructor(channel: MpiChannel, options: MpiRequestOptions) {
    this.channel = channel;
    this.operation = options.operation;
    this.parameter = options.parameter ?? 0;
    this.length = options.length ?? 0;
    this.counts = options.counts;
    this.received = options.received;
    this.slot = channel.claim();
  }

  /** Sends what has been laid down by `give` and `expect`. */
  start(): this {
    const { channel, slot } = this;
    slot.startHeaders();
    if (this.received === undefined) this.startReceiving();
    // Each rank begins with its neighbour, so that the ranks do not all send to the same one at the same time.
    for (let step = 1; step < channel.size; step++) this.sendTo((channel.rank + step) % channel.size);
    channel.endpoint.track(this);
    return this;
  }

  test(): boolean {
    const { endpoint } = this.channel;
    if (!this.complete) endpoint.progress();
    // A rank that only ever tests would never learn of an abort otherwise.
    if (!this.complete) endpoint.attendSometimes();
    return this.complete;
  }

  wait(): void {
    if (!this.complete) this.channel.endpoint.waitUntil(() => this.complete);
  }

  advance(): boolean {
    if (!this.agreed) {
      if (!this.slot.headersArrived()) return false;
      this.readHeaders();
      this.agreed = true;
    }
    while (this.slot.transfersComplete()) {
      if (!this.proceed()) continue;
      this.channel.release(this.slot);
      this.complete = true;
      break;
    }
    return this.complete;
  }

  /** Called when all pieces are where they belong; false if it has started further transfers. */
  protected proceed(): boolean {
    return true;
  }

  /** Lays down what a peer gets. */
  protected give(peer: number, region: Region, offset: number, bytes: number): void {
    if (peer !== this.channel.rank && bytes > 0) this.outgoing[peer] = { region, offset, bytes };
  }

  /** Lays down where a peer's piece goes. */
  protected expect(peer: number, region: Region, offset: number, bytes: number): void {
    if (peer !== this.channel.rank && bytes > 0) this.incoming[peer] = { region, offset, bytes };
  }

  /** Refuses a peer that is at another operation. */
  protected checkPeer(peer: number): void {
    const operation = operations[this.headerWord(peer, HeaderWord.operation)];
    const parameter = this.headerWord(peer, HeaderWord.parameter);
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
    const theirs = this.headerWord(peer, HeaderWord.length) >>> 0;
    if (theirs === this.length) return;
    this.refuse(
      `${this.operation}: rank ${this.rankName(peer)} gives ${theirs} bytes, rank ${this.ownName} ${this.length}`,
    );
  }

  /** Refuses a peer that sends another number of bytes than expected. */
  protected checkPiece(peer: number): void {
    const given = this.headerWord(peer, HeaderWord.piece) >>> 0;
    const expected = this.incoming[peer]?.bytes ?? 0;
    const isLimit = this.received !== undefined;
    if (isLimit ? given <= expected : given === expected) return;
    const own = this.ownName;
    this.refuse(
      this.operation === 'all-to-all'
        ? describeSegment(this.rankName(peer), given, own, expected, isLimit)
        : `${this.operation}: rank ${this.rankName(peer)} sends ${given} bytes, rank ${own} expects ${expected}`,
    );
  }

  /** Refuses a peer whose counts are not this rank's. */
  protected checkCounts(peer: number): void {
    const { counts = new Int32Array() } = this;
    for (let rank = 0; rank < counts.length; rank++) {
      const theirs = this.headerWord(peer, headerBytes / 4 + rank);
      if (theirs === counts[rank]) continue;
      this.refuse(
        `${this.operation}: the shard of rank ${this.rankName(rank)} has ${theirs} floats on rank ` +
          `${this.rankName(peer)}, ${counts[rank]} on rank ${this.ownName}`,
      );
    }
  }

  protected refuse(message: string): never {
    const { members, size, endpoint } = this.channel;
    const where = size === endpoint.size ? '' : ` (communicator of ranks ${members.join(', ')})`;
    return endpoint.refuse(message + where);
  }

  /** Rank in the group, the name a user knows. */
  private rankName(peer: number): number {
    return this.channel.members[peer] ?? peer;
  }

  private get ownName(): number {
    return this.channel.endpoint.rank;
  }

  private headerWord(peer: number, word: number): number {
    return this.slot.headers.integers[this.slot.receivedHeader(peer) / 4 + word];
  }

  private sendTo(peer: number): void {
    const { slot, counts } = this;
    const { headers } = slot;
    const piece = this.outgoing[peer];
    const at = slot.sentHeader(peer);
    const words = headers.integers;
    words[at / 4 + HeaderWord.operation] = operations.indexOf(this.operation);
    words[at / 4 + HeaderWord.parameter] = this.parameter;
    words[at / 4 + HeaderWord.length] = this.length;
    words[at / 4 + HeaderWord.piece] = piece?.bytes ?? 0;
    words[at / 4 + HeaderWord.counts] = counts?.length ?? 0;
    let bytes = headerBytes;
    if (counts !== undefined) {
      words.set(counts, (at + bytes) / 4);
      bytes += counts.byteLength;
    }
    const inline = piece !== undefined && piece.bytes <= inlineBytes;
    if (inline) {
      copyBytes(piece.region.bytes, piece.offset, headers.bytes, at + bytes, piece.bytes);
      bytes += piece.bytes;
    }
    slot.send(peer, MessageKind.header, headers.address + at, bytes);
    if (piece !== undefined && !inline) {
      slot.send(peer, MessageKind.payload, piece.region.address + piece.offset, piece.bytes);
    }
  }

  /** Payloads that come as messages of their own. */
  private startReceiving(): void {
    for (let peer = 0; peer < this.channel.size; peer++) {
      const piece = this.incoming[peer];
      if (piece === undefined || piece.bytes <= inlineBytes) continue;
      this.slot.receive(peer, MessageKind.payload, piece.region.address + piece.offset, piece.bytes);
    }
  }

  /** Where only limits were known: the headers say how much there is. */
  private learnLengths(received: Int32Array): void {
    for (let peer = 0; peer < this.channel.size; peer++) {
      if (peer === this.channel.rank) continue;
      received[peer] = this.headerWord(peer, HeaderWord.piece);
      const piece = this.incoming[peer];
      if (piece !== undefined) piece.bytes = received[peer];
    }
    this.startReceiving();
  }

  /** Refuses peers that disagree and takes the pieces that came inside the headers. */
  private readHeaders(): void {
    const { channel, slot } = this;
    for (let peer = 0; peer < channel.size; peer++) {
      if (peer !== channel.rank) this.checkPeer(peer);
    }
    if (this.received !== undefined) this.learnLengths(this.received);
    for (let peer = 0; peer < channel.size; peer++) {
      const piece = this.incoming[peer];
      if (piece === undefined || piece.bytes > inlineBytes) continue;
      const at = slot.receivedHeader(peer) + headerBytes + 4 * this.headerWord(peer, HeaderWord.counts);
      copyBytes(slot.headers.bytes, at, piece.region.bytes, piece.offset, piece.bytes);
    }
  }
}

interface Piece {
  region: Region;
  offset: number;
  bytes: number;
}

function copyBytes(from: Uint8Array, fromAt: number, to: Uint8Array, at: number, length: number): void {
  to.set(from.subarray(fromAt, fromAt + length), at);
}
