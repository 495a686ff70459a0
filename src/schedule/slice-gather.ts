import { Phase } from '../timeline/phases.ts';
import { roundUp } from './alignment.ts';
import { allGather, type Collective } from './collective.ts';
import { RowSegments, longestSegment } from './row-segments.ts';
import type { LayerInput, LayerSteps, ScheduleResources } from './schedule.ts';
import type { SliceChooser, TokenSlices } from './token-slices.ts';

/** What of every slice travels together. */
interface Piece {
  /** [tp] first row within the slice, and rows. */
  first: Int32Array;
  rows: Int32Array;
  /** [tp] bytes that ride along, ahead of the rows; in the first piece only. */
  riding: Int32Array;
  /** [tp] riding + rows, not compact. */
  bytes: Int32Array;
  /** Pointer to where all of it lies in the end: riding and rows of rank 0, of rank 1, ... */
  target: number;
  compact: RowSegments | undefined;
}

/**
 * All-gather of residual slices: afterwards every rank knows where every token's row is. What rows bring along for the next layer's
 * slices goes ahead of the first piece's rows. When rows are taken as they arrive, the gather is cut into pieces, all in flight at once.
 */
export class SliceGather {
  readonly #resources: ScheduleResources;
  readonly #pieces: Piece[];

  constructor(resources: ScheduleResources) {
    this.#resources = resources;
    this.#pieces = [];
  }

  *run(input: LayerInput, slices: TokenSlices, chooser: SliceChooser): LayerSteps {
    const { tensorGroup, buffers, clock } = this.#resources;
    if (tensorGroup.size === 1) return;
    const { rank } = tensorGroup;
    const { counts } = slices;
    const next = input.last ? -1 : input.layer + 1;
    const riding = next === -1 ? 0 : chooser.ridingBytes(next);
    const pieces = this.#cut(counts, riding, input.pieces);
    if (riding > 0) {
      const target = buffers.residual - pieces[0]!.riding[rank]!;
      chooser.packRiding(next, buffers.residual, counts[rank]!, target);
    }
    clock.enter(Phase.other);
    const collectives = pieces.map((piece, i) => this.#start(piece, pieces[i - 1]));
    if (next !== -1 && input.preparesSlices && chooser.choosesEarly(next)) chooser.choose(next, input);
    for (const [i, piece] of pieces.entries()) {
      yield collectives[i]!;
      if (piece.compact !== undefined) this.#unfold(piece, piece.compact);
      this.#arrived(input, slices, chooser, piece, collectives[i + 1]);
    }
  }

  #cut(counts: Int32Array, riding: number, pieces: number): Piece[] {
    const { hiddenSize, buffers } = this.#resources;
    let target = buffers.gathered;
    for (let i = 0; i < pieces; i++) {
      const piece = (this.#pieces[i] ??= this.#newPiece());
      piece.target = target;
      counts.forEach((count, rank) => {
        piece.first[rank] = Math.floor((count * i) / pieces);
        piece.rows[rank] = Math.floor((count * (i + 1)) / pieces) - piece.first[rank]!;
        piece.riding[rank] = i === 0 ? roundUp(count * riding, 4) : 0;
        piece.bytes[rank] = piece.riding[rank]! + piece.rows[rank]! * hiddenSize * 4;
        target += piece.bytes[rank]!;
      });
    }
    return this.#pieces.slice(0, pieces);
  }

  #newPiece(): Piece {
    const { tensorGroup, compactRows } = this.#resources;
    const numbers = (): Int32Array => new Int32Array(tensorGroup.size);
    const compact = compactRows ? new RowSegments(this.#resources, tensorGroup, true) : undefined;
    return { first: numbers(), rows: numbers(), riding: numbers(), bytes: numbers(), target: 0, compact };
  }

  #start(piece: Piece, before: Piece | undefined): Collective {
    const { tensorGroup, bytes } = this.#resources;
    if (piece.compact !== undefined) return this.#startCompact(piece, piece.compact, before?.compact);
    const source = this.#ownSource(piece);
    const total = piece.bytes.reduce((sum, own) => sum + own, 0);
    const request = tensorGroup.startAllGather(
      bytes.subarray(source, source + piece.bytes[tensorGroup.rank]!),
      bytes.subarray(piece.target, piece.target + total),
      piece.bytes,
      'attention',
    );
    return allGather(request, 'attention', tensorGroup.rank, piece.bytes);
  }

  #startCompact(piece: Piece, segments: RowSegments, before: RowSegments | undefined): Collective {
    const { tensorGroup, hiddenSize, kernels, buffers } = this.#resources;
    const { rank, size } = tensorGroup;
    const source = this.#ownSource(piece);
    const riding = piece.riding[rank]!;
    segments.begin(before?.sendEnd ?? buffers.send, before?.receiveEnd ?? buffers.result);
    segments.openForAll();
    kernels.copy(source, segments.addBytes(riding), riding);
    segments.addRows(source + riding, undefined, piece.rows[rank]!);
    segments.repeatForAll();
    for (let other = 0; other < size; other++)
      if (other !== rank) segments.expect(other, piece.riding[other]! + longestSegment(piece.rows[other]!, hiddenSize));
    return segments.start('attention');
  }

  /** Pointer to what this rank sends. */
  #ownSource(piece: Piece): number {
    const { tensorGroup, hiddenSize, buffers } = this.#resources;
    return buffers.residual + piece.first[tensorGroup.rank]! * hiddenSize * 4 - piece.riding[tensorGroup.rank]!;
  }

  /** Puts compact rows and what rode along where the all-gather would have put them. */
  #unfold(piece: Piece, segments: RowSegments): void {
    const { tensorGroup, kernels } = this.#resources;
    let target = piece.target;
    piece.bytes.forEach((bytes, rank) => {
      const riding = piece.riding[rank]!;
      if (rank === tensorGroup.rank) kernels.copy(this.#ownSource(piece), target, bytes);
      else {
        kernels.copy(segments.arrivedAt(rank), target, riding);
        segments.takeRows(rank, riding, 0, undefined, target + riding, piece.rows[rank]!);
      }
      target += bytes;
    });
  }

  /** Notes where a piece's rows are and hands them on. */
  #arrived(
    input: LayerInput,
    { order, counts }: TokenSlices,
    chooser: SliceChooser,
    piece: Piece,
    underWay: Collective | undefined,
  ): void {
    const { hiddenSize, buffers, integers, clock } = this.#resources;
    const rowBytes = hiddenSize * 4;
    const addresses = input.addresses / 4;
    clock.enter(Phase.permute);
    // 1. Where everything is.
    const firstRow: number[] = [];
    let at = piece.target;
    let before = 0;
    let rode = false;
    counts.forEach((count, rank) => {
      if (piece.riding[rank]! > 0) {
        const tokens = order === undefined ? indices(before, count) : order.subarray(before, before + count);
        chooser.unpackRiding(input.layer + 1, at, tokens);
        at += piece.riding[rank]!;
        rode = true;
      }
      firstRow.push(at);
      const first = before + piece.first[rank]!;
      for (let i = first; i < first + piece.rows[rank]!; i++, at += rowBytes)
        integers[addresses + (order === undefined ? i : order[i]!)] = at;
      before += count;
    });
    // 2. Slices of the next layer, while later pieces are under way.
    if (rode && input.preparesSlices) chooser.choose(input.layer + 1, input);
    // 3. Rows, to whoever takes them early.
    if (input.onRows === undefined) return;
    if (piece === this.#pieces[0] && order === undefined)
      for (let i = 0; i < input.tokens; i++) integers[buffers.order / 4 + i] = i;
    before = 0;
    counts.forEach((count, rank) => {
      const rows = piece.rows[rank]!;
      if (rows > 0) input.onRows!(firstRow[rank]!, buffers.order + (before + piece.first[rank]!) * 4, rows);
      // A look at the network between the ranks' rows keeps the pieces under way moving.
      underWay?.request.test();
      before += count;
    });
  }
}

function indices(first: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => first + i);
}
