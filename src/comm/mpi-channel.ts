/**
 * One communicator's slots, seen from one rank.
 *
 * Every collective sends one header to each peer: what is being done, how much, and the payload itself when it is small.
 * Larger payloads follow as messages of their own, straight from one attached memory into the other. Collectives are
 * numbered; number n uses slot n modulo `slotCount`, and its messages carry the slot's tags. A rank reuses a slot only
 * after its own operation there is complete, so the messages of a pair of ranks match in order.
 */
import { handleIn, type MpiEndpoint } from './mpi-endpoint.ts';
import type { Region } from './mpi-library.ts';
import { TreeSum } from './tree-sum.ts';

/** Collectives of one communicator that may be in flight at a time; a power of two. */
export const slotCount = 8;

/**
 * Pieces up to this many bytes travel inside the header. With a header for 64 ranks they stay below 4 KiB, up to which
 * Open MPI sends without asking the receiver first.
 */
export const inlineBytes = 3584;

/** Words of a header before its counts. */
export const HeaderWord = {
  operation: 0,
  /** Root of a broadcast, full length of an all-reduce-maximum; must agree between ranks. */
  parameter: 1,
  /** Bytes of the whole payload; must agree between ranks where the operation says so. */
  length: 2,
  /** Bytes of it for the receiver. */
  piece: 3,
  /** Entries of `counts`: the size of the communicator, or 0. */
  counts: 4,
} as const;
export const headerBytes = 32;

/** Kinds of message; a slot has a tag for each. */
export const MessageKind = { header: 0, payload: 1, result: 2 } as const;
const kindCount = 4;

/** MPI counts are 32-bit; longer pieces travel in parts. */
const longestPart = 2 ** 30;
const requestBytes = 8;

export class MpiSlot {
  readonly index: number;
  readonly channel: MpiChannel;
  /** [2][size][headerStride]: headers received by sender, then headers sent by receiver. */
  readonly headers: Region;
  readonly headerStride: number;
  /** MPI_Requests: one persistent header receive per peer, then whatever the operation starts. */
  private readonly requests: Region;
  private readonly capacity: number;
  private started = 0;

  constructor(channel: MpiChannel, index: number) {
    const { size, rank, endpoint, comm } = channel;
    const { library } = endpoint;
    this.index = index;
    this.channel = channel;
    this.headerStride = Math.ceil((headerBytes + 4 * size + inlineBytes) / 64) * 64;
    this.headers = library.allocate(2 * size * this.headerStride);
    // Per peer: header receive, header send, and payloads both ways in at most 4 parts.
    this.capacity = 10 * size;
    this.requests = library.allocate(this.capacity * requestBytes);
    let at = this.requests.address;
    for (let peer = 0; peer < size; peer++) {
      if (peer === rank) continue;
      const tag = this.tagOf(MessageKind.header);
      library.check(
        library.mpi.MPI_Recv_init(
          this.headers.address + this.receivedHeader(peer),
          this.headerStride,
          library.byteType,
          peer,
          tag,
          comm,
          at,
        ),
        'preparing to receive',
      );
      at += requestBytes;
    }
  }

  private get peers(): number {
    return this.channel.size - 1;
  }

  /** Byte offset in `headers`. */
  receivedHeader(peer: number): number {
    return peer * this.headerStride;
  }

  sentHeader(peer: number): number {
    return (this.channel.size + peer) * this.headerStride;
  }

  startHeaders(): void {
    const { library } = this.channel.endpoint;
    this.started = 0;
    if (this.peers > 0) {
      library.check(library.mpi.MPI_Startall(this.peers, this.requests.address), 'receiving headers');
    }
  }

  headersArrived(): boolean {
    return this.allComplete(0, this.peers);
  }

  /** Whether everything started with `send` and `receive` is complete. */
  transfersComplete(): boolean {
    if (!this.allComplete(this.peers, this.started)) return false;
    this.started = 0;
    return true;
  }

  send(peer: number, kind: number, address: number, bytes: number): void {
    const { library } = this.channel.endpoint;
    for (let at = 0; at < bytes; at += longestPart) {
      const part = Math.min(longestPart, bytes - at);
      library.check(
        library.mpi.MPI_Isend(
          address + at,
          part,
          library.byteType,
          peer,
          this.tagOf(kind),
          this.channel.comm,
          this.nextRequest(),
        ),
        'sending',
      );
    }
  }

  receive(peer: number, kind: number, address: number, bytes: number): void {
    const { library } = this.channel.endpoint;
    for (let at = 0; at < bytes; at += longestPart) {
      const part = Math.min(longestPart, bytes - at);
      library.check(
        library.mpi.MPI_Irecv(
          address + at,
          part,
          library.byteType,
          peer,
          this.tagOf(kind),
          this.channel.comm,
          this.nextRequest(),
        ),
        'receiving',
      );
    }
  }

  private tagOf(kind: number): number {
    return this.index * kindCount + kind;
  }

  private nextRequest(): number {
    return this.requests.address + (this.peers + this.started++) * requestBytes;
  }

  private allComplete(first: number, count: number): boolean {
    if (count === 0) return true;
    const { library, flag } = this.channel.endpoint;
    library.check(
      library.mpi.MPI_Testall(count, this.requests.address + first * requestBytes, flag.address, 0),
      'exchanging',
    );
    return flag.integers[0] !== 0;
  }
}

export class MpiChannel {
  readonly endpoint: MpiEndpoint;
  /** Rank in the group of each rank of this communicator. */
  readonly members: number[];
  readonly rank: number;
  readonly size: number;
  /** MPI_Comm. */
  readonly comm: number;
  readonly treeSum: TreeSum;
  private readonly slots: MpiSlot[] = [];
  /** Whether the latest operation of each slot is complete. */
  private readonly busy: Uint8Array = new Uint8Array(slotCount);
  private sequence = 0;

  constructor(endpoint: MpiEndpoint, members: number[], comm: number) {
    this.endpoint = endpoint;
    this.members = members;
    this.rank = members.indexOf(endpoint.rank);
    this.size = members.length;
    this.comm = comm;
    this.treeSum = new TreeSum(this.size);
  }

  /** The slot of the next collective; blocks while the operation `slotCount` before it is under way here. */
  claim(): MpiSlot {
    // Peers that do not know of the abort yet would take the header of what follows it for a disagreement.
    this.endpoint.throwIfAborted();
    const index = this.sequence++ & (slotCount - 1);
    if (this.busy[index] === 1) this.endpoint.waitUntil(() => this.busy[index] === 0);
    this.busy[index] = 1;
    return (this.slots[index] ??= new MpiSlot(this, index));
  }

  release(slot: MpiSlot): void {
    this.busy[slot.index] = 0;
  }

  /** Collective over this communicator; `members` are in the order of the new ranks. */
  subChannel(color: number, members: number[]): MpiChannel {
    const { endpoint, comm } = this;
    const { library } = endpoint;
    const out = library.allocate(8);
    const rank = members.indexOf(endpoint.rank);
    library.check(library.mpi.MPI_Comm_split(comm, color, rank, out.address), 'splitting a communicator');
    const part = handleIn(out);
    library.check(library.mpi.MPI_Comm_set_errhandler(part, library.errorsReturn), 'splitting a communicator');
    return new MpiChannel(endpoint, members, part);
  }
}
