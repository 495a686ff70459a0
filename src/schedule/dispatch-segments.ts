import { Phase } from '../timeline/phases.ts';
import { roundUp } from './alignment.ts';
import { allToAll, type Collective } from './collective.ts';
import { RowSegments, longestSegment } from './row-segments.ts';
import { type LayerSteps, rowList, type ScheduleResources } from './schedule.ts';

/** Bytes of a dispatched row's routing: one uint16 count per row; per (row, expert) pair a f32 weight and a uint16 id. */
const routingBytesPerRow = 2;
const routingBytesPerPair = 6;
/** The number of rows, as two halves. */
const segmentEndBytes = 4;

function routingBytes(rows: number, pairs: number): number {
  return rows * routingBytesPerRow + pairs * routingBytesPerPair + segmentEndBytes;
}

/** Bytes dispatched from one rank to another, rows not compact. */
export function segmentBytes(rows: number, pairs: number, rowBytes: number): number {
  return rows === 0 ? 0 : rows * rowBytes + routingBytes(rows, pairs);
}

/** Most bytes that compact rows and their routing take. */
export function longestCompactSegment(rows: number, topK: number, hiddenSize: number): number {
  return longestSegment(rows, hiddenSize, routingBytes(rows, rows * topK));
}

/** Takes one (row, expert) pair; `inputRow` counts rows from `buffers.input`, `guest` the rows received. */
export type PairVisitor = (expert: number, inputRow: number, guest: number, weight: number) => void;

/**
 * Rows on their way to the ranks that own some of their experts, each with what it is to be multiplied by there.
 *
 * Segment to a rank: rows [n, H] f32, or compact and filled up to 4 bytes | weights [pairs] f32 | expert ids [pairs] uint16 | experts per
 * row [n] uint16 | n. It says itself how long it is, and every source has a place of its own to arrive at, so no sizes go ahead.
 * Plain rows arrive where they are computed with, compact ones in `buffers.result` first.
 */
export class DispatchSegments {
  /** [ranks] rows of this rank listed for each rank (in `buffers.rowLists`), and their pairs; filled in by the caller. */
  readonly rowsTo: Int32Array;
  readonly pairsTo: Int32Array;
  /** [ranks] rows received from each. */
  readonly rowsFrom: Int32Array;
  readonly #resources: ScheduleResources;
  readonly #compact: RowSegments | undefined;
  readonly #halves: Uint16Array;
  readonly #sendBytes: Int32Array;
  readonly #sendAt: Int32Array;
  readonly #receivedBytes: Int32Array;
  /** Where the rows of each rank lie before they are computed with, bytes from `buffers.input`; and pointers to their routing. */
  readonly #rowsAt: Int32Array;
  readonly #routingAt: Int32Array;
  readonly #pairsFrom: Int32Array;
  /** Most bytes of a segment of plain rows from each rank. */
  readonly #mostBytes: Int32Array;

  constructor(resources: ScheduleResources) {
    const { world, hiddenSize, topK, buffers } = resources;
    const ranks = world.size;
    const rowBytes = hiddenSize * 4;
    this.#resources = resources;
    this.#compact = resources.compactRows ? new RowSegments(resources, world, true) : undefined;
    this.#halves = new Uint16Array(resources.bytes.buffer);
    this.rowsTo = new Int32Array(ranks);
    this.pairsTo = new Int32Array(ranks);
    this.rowsFrom = new Int32Array(ranks);
    this.#pairsFrom = new Int32Array(ranks);
    this.#sendBytes = new Int32Array(ranks);
    this.#sendAt = new Int32Array(ranks);
    this.#receivedBytes = new Int32Array(ranks);
    this.#routingAt = new Int32Array(ranks);
    const slice = buffers.rowListEntries;
    this.#mostBytes = new Int32Array(ranks).fill(segmentBytes(slice, slice * topK, rowBytes));
    this.#mostBytes[world.rank] = 0;
    // Own rows come first.
    let end = slice * rowBytes;
    this.#rowsAt = this.#mostBytes.map((bytes) => {
      const start = end;
      end = roundUp(start + bytes, rowBytes);
      return start;
    });
  }

  clear(): void {
    this.rowsTo.fill(0);
    this.pairsTo.fill(0);
    this.rowsFrom.fill(0);
  }

  /** Sends one segment to every rank that has rows listed. */
  *exchange(layer: number): LayerSteps {
    const { world, clock } = this.#resources;
    if (world.size === 1) return;
    yield this.#compact === undefined ? this.#sendPlain(layer) : this.#sendCompact(this.#compact, layer);
    clock.enter(Phase.pack);
    for (let rank = 0; rank < world.size; rank++) this.#readRouting(rank);
  }

  /** Visits the routing of received segments, in rank order. Returns the number of rows received. */
  forEachPair(visit: PairVisitor): number {
    const { world, hiddenSize, floats } = this.#resources;
    let guest = 0;
    for (let rank = 0; rank < world.size; rank++) {
      const count = this.rowsFrom[rank]!;
      const pairs = this.#pairsFrom[rank]!;
      const firstRow = this.#rowsAt[rank]! / (hiddenSize * 4);
      const at = this.#routingAt[rank]!;
      let weightAt = at / 4;
      let idAt = (at + pairs * 4) / 2;
      const countAt = (at + pairs * 6) / 2;
      for (let i = 0; i < count; i++, guest++) {
        for (let j = this.#halves[countAt + i]!; j > 0; j--)
          visit(this.#halves[idAt++]!, firstRow + i, guest, floats[weightAt++]!);
      }
    }
    return guest;
  }

  #sendPlain(layer: number): Collective {
    const { world, kernels, hiddenSize, buffers, bytes } = this.#resources;
    const rowBytes = hiddenSize * 4;
    let sendEnd = 0;
    for (let rank = 0; rank < world.size; rank++) {
      const count = this.rowsTo[rank]!;
      this.#sendAt[rank] = sendEnd;
      this.#sendBytes[rank] = segmentBytes(count, this.pairsTo[rank]!, rowBytes);
      sendEnd = roundUp(sendEnd + this.#sendBytes[rank]!, 4);
      if (count === 0) continue;
      const at = buffers.send + this.#sendAt[rank]!;
      kernels.gatherRows(buffers.input, rowList(buffers, rank), at, count, hiddenSize);
      this.#packRouting(layer, rank, at + count * rowBytes);
    }
    const last = world.size - 1;
    const receiveEnd = this.#rowsAt[last]! + this.#mostBytes[last]!;
    const request = world.startAllToAll(
      bytes.subarray(buffers.send, buffers.send + sendEnd),
      this.#sendBytes,
      this.#sendAt,
      bytes.subarray(buffers.input, buffers.input + receiveEnd),
      this.#mostBytes,
      this.#rowsAt,
      'dispatch',
      this.#receivedBytes,
    );
    return allToAll(request, 'dispatch', world.rank, this.#sendBytes, this.#receivedBytes);
  }

  #sendCompact(segments: RowSegments, layer: number): Collective {
    const { world, hiddenSize, topK, buffers } = this.#resources;
    const most = longestCompactSegment(buffers.rowListEntries, topK, hiddenSize);
    segments.begin(buffers.send, buffers.result);
    for (let rank = 0; rank < world.size; rank++) {
      if (rank === world.rank) continue;
      segments.expect(rank, most);
      const count = this.rowsTo[rank]!;
      if (count === 0) continue;
      segments.open(rank);
      segments.addRows(buffers.input, rowList(buffers, rank), count);
      this.#packRouting(layer, rank, segments.addBytes(routingBytes(count, this.pairsTo[rank]!)));
    }
    return segments.start('dispatch');
  }

  /** How many rows and pairs a rank has sent, and where; compact rows are taken to where plain ones would have arrived. */
  #readRouting(rank: number): void {
    const { buffers } = this.#resources;
    const compact = this.#compact;
    const length = compact === undefined ? this.#receivedBytes[rank]! : compact.receivedBytes(rank);
    this.rowsFrom[rank] = this.#pairsFrom[rank] = 0;
    if (length === 0) return;
    const start = compact === undefined ? buffers.input + this.#rowsAt[rank]! : compact.arrivedAt(rank);
    const end = (start + length) / 2;
    const rows = this.#halves[end - 2]! + this.#halves[end - 1]! * 0x10000;
    let pairs = 0;
    for (let at = end - 2 - rows; at < end - 2; at++) pairs += this.#halves[at]!;
    const routing = routingBytes(rows, pairs);
    this.rowsFrom[rank] = rows;
    this.#pairsFrom[rank] = pairs;
    this.#routingAt[rank] = start + length - routing;
    compact?.takeRows(rank, 0, routing, undefined, buffers.input + this.#rowsAt[rank]!, rows);
  }

  /** Weights, ids and counts of the rows listed for a rank, and their number. @param at pointer */
  #packRouting(layer: number, rank: number, at: number): void {
    const { ownership, topK, buffers, integers, floats } = this.#resources;
    const ids = buffers.expertIds / 4;
    const weights = buffers.expertWeights / 4;
    const count = this.rowsTo[rank]!;
    const pairs = this.pairsTo[rank]!;
    const list = rowList(buffers, rank) / 4;
    let weightAt = at / 4;
    let idAt = (at + pairs * 4) / 2;
    let countAt = (at + pairs * 6) / 2;
    for (let i = 0; i < count; i++) {
      const entry = integers[list + i]! * topK;
      let here = 0;
      for (let j = 0; j < topK; j++) {
        const expert = integers[ids + entry + j]!;
        if (ownership.ownerRank(layer, expert) !== rank) continue;
        floats[weightAt++] = floats[weights + entry + j]!;
        this.#halves[idAt++] = expert;
        here++;
      }
      this.#halves[countAt++] = here;
    }
    this.#halves[countAt++] = count & 0xffff;
    this.#halves[countAt] = count >>> 16;
  }
}
