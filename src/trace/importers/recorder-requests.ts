import { badRecord } from '../bad-record.ts';
import type { Batch } from './recorder-batches.ts';

/** sglang.srt.model_executor.forward_batch_info.ForwardMode */
const forwardMode = { extend: 1, decode: 2, mixed: 3, idle: 4 } as const;

/** One token of a request: a row of a batch. */
export interface RequestRow {
  batch: Batch;
  row: number;
  phase: 0 | 1;
}

interface Request {
  rows: RequestRow[];
  /** Position that its next token has. */
  next: number;
}

/** The requests of one attention group, told apart by position and order: the recorder keeps no request ids. */
export class RequestLinker {
  readonly requests: { rows: RequestRow[] }[] = [];
  /** Decoded tokens that more than one request could have had. */
  ambiguousTokens: number = 0;
  /** Tokens of passes that are neither prefill nor decoding, such as verified drafts. */
  otherTokens: number = 0;
  /** In the order of the running batch. */
  #running: Request[] = [];
  /** Of the latest prefill pass: one of them may go on in the next, in chunks. */
  #prefilled: Request[] = [];

  add(where: string, batch: Batch): void {
    const { mode, inputIds } = batch;
    if (mode === forwardMode.decode) this.#decode(batch);
    else if (mode === forwardMode.extend || mode === forwardMode.mixed) this.#extend(where, batch);
    else if (mode !== forwardMode.idle) this.otherTokens += inputIds.length;
  }

  /** A decoding batch has a token of every running request, in their order; whoever has none has ended. */
  #decode(batch: Batch): void {
    const went = new Set<Request>();
    let from = 0;
    for (const [row, position] of batch.positions.entries()) {
      from = this.#decodeRow(batch, row, position, from, went);
    }
    this.#running = this.#running.filter((request) => went.has(request));
  }

  /** @returns index in the running batch from which the next row's request is sought */
  #decodeRow(batch: Batch, row: number, position: number, from: number, went: Set<Request>): number {
    const fits = (request: Request): boolean => request.next === position && !went.has(request);
    const ahead = this.#running.findIndex((request, i) => i >= from && fits(request));
    const at = ahead >= 0 ? ahead : this.#running.findIndex((request) => fits(request));
    const request = at >= 0 ? this.#running[at]! : this.#begin(position);
    if (at >= 0 && batch.positions.length < this.#running.length) {
      if (this.#running.some((other) => other !== request && fits(other))) this.ambiguousTokens++;
    }
    append(request, batch, row, position, 1);
    went.add(request);
    return at >= 0 ? at + 1 : this.#running.length;
  }

  #extend(where: string, batch: Batch): void {
    const { segments, positions, mode } = batch;
    const total = segments?.reduce((sum, length) => sum + length, 0);
    if (segments === undefined || total !== positions.length || segments.some((length) => length < 0)) {
      throw badRecord(where, `extend_seq_lens sum to ${total ?? 'nothing'} for ${positions.length} tokens`);
    }
    const earlier = this.#prefilled;
    this.#prefilled = [];
    const went = new Set<Request>();
    let from = 0;
    let row = 0;
    for (const length of segments) {
      const start = positions[row]!;
      const decodes =
        mode === forwardMode.mixed && length === 1 && this.#running.some(({ next }, i) => i >= from && next === start);
      if (decodes) from = this.#decodeRow(batch, row, start, from, went);
      else if (length > 0) this.#prefill(batch, row, length, earlier);
      row += length;
    }
  }

  #prefill(batch: Batch, row: number, length: number, earlier: Request[]): void {
    const start = batch.positions[row]!;
    const chunk = start === 0 ? undefined : earlier.find(({ next }) => next === start);
    const request = chunk ?? this.#begin(start);
    if (chunk !== undefined && !this.#running.includes(chunk)) this.#running.push(chunk);
    for (let i = 0; i < length; i++) append(request, batch, row + i, batch.positions[row + i]!, 0);
    this.#prefilled.push(request);
  }

  #begin(position: number): Request {
    const request: Request = { rows: [], next: position };
    this.#running.push(request);
    this.requests.push(request);
    return request;
  }
}

function append(request: Request, batch: Batch, row: number, position: number, phase: 0 | 1): void {
  request.rows.push({ batch, row, phase });
  request.next = position + 1;
}
