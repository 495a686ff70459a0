import type { Communicator, Purpose } from '../comm/communicator.ts';
import { SmoeError } from '../errors.ts';
import { Kernels } from '../kernels/kernels.ts';
import { roundUp } from './alignment.ts';
import { allToAll, type Collective } from './collective.ts';
import type { ScheduleResources } from './schedule.ts';

/** Segments begin at multiples of it, and so does what follows rows. */
const alignment = 4;

/** Most bytes of a segment of rows, compact or plain, with `others` bytes besides. */
export function longestSegment(rows: number, hiddenSize: number, others: number = 0): number {
  return roundUp(rows * Kernels.longestCompactRow(hiddenSize), alignment) + others;
}

/**
 * One exchange of rows, compact (kernels/assembly/compact-rows.ts) or plain: a segment for every other rank, made one after the other in
 * a send region, and places in a receive region where theirs arrive. How long compact ones are depends on the values, so receivers name
 * limits.
 */
export class RowSegments {
  readonly #resources: ScheduleResources;
  readonly #group: Communicator;
  readonly #compact: boolean;
  readonly #sendBytes: Int32Array;
  readonly #sendAt: Int32Array;
  readonly #mostBytes: Int32Array;
  readonly #arrivesAt: Int32Array;
  readonly #receivedBytes: Int32Array;
  #send: number;
  #receive: number;
  #rank: number;
  #sendEnd: number;
  #receiveEnd: number;

  constructor(resources: ScheduleResources, group: Communicator, compact: boolean) {
    const ranks = group.size;
    this.#resources = resources;
    this.#group = group;
    this.#compact = compact;
    this.#sendBytes = new Int32Array(ranks);
    this.#sendAt = new Int32Array(ranks);
    this.#mostBytes = new Int32Array(ranks);
    this.#arrivesAt = new Int32Array(ranks);
    this.#receivedBytes = new Int32Array(ranks);
    this.#send = this.#receive = this.#sendEnd = this.#receiveEnd = this.#rank = 0;
  }

  /** Ends of the regions in use so far. */
  get sendEnd(): number {
    return this.#sendEnd;
  }

  get receiveEnd(): number {
    return this.#receiveEnd;
  }

  /** A new exchange. @param send, @param receive pointers to its regions */
  begin(send: number, receive: number): void {
    this.#send = this.#sendEnd = send;
    this.#receive = this.#receiveEnd = receive;
    this.#sendBytes.fill(0);
    this.#sendAt.fill(0);
    this.#mostBytes.fill(0);
    this.#arrivesAt.fill(0);
  }

  /** What follows is for this rank. Returns where its segment begins. */
  open(rank: number): number {
    this.#sendEnd = roundUp(this.#sendEnd, alignment);
    this.#rank = rank;
    this.#sendAt[rank] = this.#sendEnd - this.#send;
    return this.#sendEnd;
  }

  /** Adds rows. @param source pointer [rows of it, H], @param index pointer to int32 [rows], or all in order */
  addRows(source: number, index: number | undefined, rows: number): void {
    const { kernels, hiddenSize } = this.#resources;
    if (this.#compact) this.#sendEnd += kernels.compactRows(source, index, this.#sendEnd, rows, hiddenSize);
    else {
      const bytes = rows * hiddenSize * 4;
      if (index === undefined) kernels.copy(source, this.#sendEnd, bytes);
      else kernels.gatherRows(source, index, this.#sendEnd, rows, hiddenSize);
      this.#sendEnd += bytes;
    }
    this.#measure();
  }

  /** What follows is for every other rank. */
  openForAll(): void {
    const { rank, size } = this.#group;
    this.open((rank + 1) % size);
  }

  /** What was made since `openForAll` goes to all of them. */
  repeatForAll(): void {
    const { rank, size } = this.#group;
    for (let other = 0; other < size; other++) {
      if (other === rank) continue;
      this.#sendAt[other] = this.#sendAt[this.#rank]!;
      this.#sendBytes[other] = this.#sendBytes[this.#rank]!;
    }
  }

  /** Room for other bytes, aligned to 4. Returns its pointer. */
  addBytes(bytes: number): number {
    const at = roundUp(this.#sendEnd, alignment);
    this.#sendEnd = at + bytes;
    this.#measure();
    return at;
  }

  /** Makes a place for what comes from a rank. */
  expect(rank: number, mostBytes: number): void {
    const at = roundUp(this.#receiveEnd, alignment);
    this.#mostBytes[rank] = mostBytes;
    this.#arrivesAt[rank] = at - this.#receive;
    this.#receiveEnd = at + mostBytes;
  }

  start(purpose: Purpose): Collective {
    const { bytes } = this.#resources;
    const request = this.#group.startAllToAll(
      bytes.subarray(this.#send, this.#sendEnd),
      this.#sendBytes,
      this.#sendAt,
      bytes.subarray(this.#receive, this.#receiveEnd),
      this.#mostBytes,
      this.#arrivesAt,
      purpose,
      this.#receivedBytes,
    );
    return allToAll(request, purpose, this.#group.rank, this.#sendBytes, this.#receivedBytes);
  }

  /** Pointer to what a rank has sent. */
  arrivedAt(rank: number): number {
    return this.#receive + this.#arrivesAt[rank]!;
  }

  receivedBytes(rank: number): number {
    return this.#receivedBytes[rank]!;
  }

  /**
   * Takes rows out of what a rank has sent: target[index[i]], or target[i] without index.
   *
   * @param from bytes of the segment before them, @param after bytes after them
   */
  takeRows(rank: number, from: number, after: number, index: number | undefined, target: number, rows: number): void {
    const taken = this.#take(this.arrivedAt(rank) + from, index, target, rows);
    const length = this.receivedBytes(rank);
    if (from + (after === 0 ? taken : roundUp(taken, alignment)) + after !== length) {
      throw new SmoeError(
        'COMM_MISMATCH',
        `rank ${this.#group.rank}: ${rows} rows of rank ${rank} end elsewhere than its segment of ${length} bytes`,
      );
    }
  }

  /** Returns the bytes that the rows took. */
  #take(source: number, index: number | undefined, target: number, rows: number): number {
    const { kernels, hiddenSize } = this.#resources;
    if (this.#compact) return kernels.expandRows(source, index, target, rows, hiddenSize);
    const bytes = rows * hiddenSize * 4;
    if (index === undefined) kernels.copy(source, target, bytes);
    else kernels.scatterRows(source, index, target, rows, hiddenSize);
    return bytes;
  }

  #measure(): void {
    this.#sendBytes[this.#rank] = this.#sendEnd - this.#send - this.#sendAt[this.#rank]!;
  }
}
