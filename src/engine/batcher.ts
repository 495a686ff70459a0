import type { StepBatch } from './transformer.ts';
import type { PageCache, PageTable } from './page-cache.ts';
import type { FinishReason, GenerationRequest } from './api.ts';

/** A request on its way through one data-parallel group. */
export interface Sequence {
  /** Number of the request in the run. */
  request: number;
  options: GenerationRequest;
  /** Prompt and generated ids. */
  tokens: number[];
  /** Positions already in the cache. */
  computed: number;
  generated: number;
  firstRecordRow: number;
  table: PageTable;
  finishReason: FinishReason | undefined;
}

/** A step and which of its rows end a sequence's known tokens, so that a next token is sampled there. */
export interface PlannedStep {
  batch: StepBatch;
  prefillTokens: number;
  sampled: { row: number; sequence: Sequence }[];
  /** Sequence of each row, for records of every position. */
  rowSequence: Sequence[];
}

/**
 * Continuous batching of one group, a pure function of the requests, so that every tensor rank plans the same steps: each
 * step decodes every running sequence, then fills up with prompt chunks in request order; waiting requests are admitted as
 * soon as the cache has room for all their positions.
 */
export class Batcher {
  readonly #waiting: Omit<Sequence, 'table'>[];
  readonly #running: Sequence[] = [];
  readonly #cache: PageCache;
  readonly #integers: Int32Array;
  readonly #stepTokens: number;

  constructor(waiting: Omit<Sequence, 'table'>[], cache: PageCache, integers: Int32Array, stepTokens: number) {
    this.#waiting = [...waiting];
    this.#cache = cache;
    this.#integers = integers;
    this.#stepTokens = stepTokens;
  }

  /** The next step; without tokens once everything has finished. */
  next(): PlannedStep {
    this.#admit();
    const chunks: { sequence: Sequence; rows: number }[] = [];
    let room = this.#stepTokens;
    const take = (sequence: Sequence, rows: number): void => {
      if (rows <= 0) return;
      chunks.push({ sequence, rows });
      room -= rows;
    };
    for (const sequence of this.#running) if (sequence.generated > 0) take(sequence, Math.min(room, 1));
    let prefillTokens = 0;
    for (const sequence of this.#running) {
      if (sequence.generated > 0) continue;
      const rows = Math.min(room, sequence.tokens.length - sequence.computed);
      take(sequence, rows);
      prefillTokens += rows;
    }
    return { ...buildStep(chunks), prefillTokens };
  }

  /** Marks a planned step as computed. */
  advance(step: PlannedStep): void {
    for (const chunk of step.batch.sequences) step.rowSequence[chunk.first]!.computed += chunk.rows;
  }

  finish(sequence: Sequence): void {
    this.#running.splice(this.#running.indexOf(sequence), 1);
    this.#cache.release(sequence.table);
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#running.length < this.#stepTokens) {
      const next = this.#waiting[0]!;
      const table = this.#cache.admit(next.options.tokens.length + next.options.maxNewTokens, this.#integers);
      if (table === undefined) return;
      this.#waiting.shift();
      this.#running.push({ ...next, table });
    }
  }
}

function buildStep(chunks: { sequence: Sequence; rows: number }[]): Omit<PlannedStep, 'prefillTokens'> {
  const tokens = chunks.reduce((sum, chunk) => sum + chunk.rows, 0);
  const batch: StepBatch = {
    firstRow: 0,
    tokens,
    tokenIds: new Int32Array(tokens),
    positions: new Int32Array(tokens),
    recordRows: new Int32Array(tokens),
    sequences: [],
  };
  const sampled: PlannedStep['sampled'] = [];
  const rowSequence: Sequence[] = [];
  let row = 0;
  for (const { sequence, rows } of chunks) {
    batch.sequences.push({ first: row, rows, firstPosition: sequence.computed, pageTable: sequence.table.pointer });
    for (let i = 0; i < rows; i++, row++) {
      const position = sequence.computed + i;
      batch.tokenIds[row] = sequence.tokens[position]!;
      batch.positions[row] = position;
      batch.recordRows[row] = sequence.firstRecordRow + position;
      rowSequence.push(sequence);
    }
    if (sequence.computed + rows === sequence.tokens.length) sampled.push({ row: row - 1, sequence });
  }
  return { batch, sampled, rowSequence };
}
