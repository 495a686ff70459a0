import { purposes, type Purpose } from '../comm/communicator.ts';

/** What one rank did when, as columns. Times are milliseconds since the run began, on the rank's own clock. */
export interface RankTimeline {
  /** Phases one after another: phase, layer (-1 outside), micro-batch (0 = whole step), step. */
  spans: {
    phase: Uint8Array;
    layer: Int16Array;
    half: Uint8Array;
    step: Int32Array;
    start: Float64Array;
    end: Float64Array;
  };
  /** Collectives from their start to when the rank saw them complete; bytes to and from other ranks. */
  exchanges: {
    purpose: Uint8Array;
    layer: Int16Array;
    half: Uint8Array;
    step: Int32Array;
    start: Float64Array;
    end: Float64Array;
    sent: Float64Array;
    received: Float64Array;
  };
}

/** Collects a timeline; spans that follow each other in the same phase become one. */
export class TimelineRecorder {
  step: number;
  readonly #zero: number;
  readonly #steps: number;
  /** [n][phase, layer, half, step, start, end] */
  readonly #spans: number[][];
  /** [n][purpose, layer, half, step, start, end, sent, received] */
  readonly #exchanges: number[][];

  /** @param zero time the run began; @param steps record only so many steps, for files of a size that opens */
  constructor(zero: number, steps: number) {
    this.step = 0;
    this.#zero = zero;
    this.#steps = steps;
    this.#spans = [];
    this.#exchanges = [];
  }

  span(phase: number, layer: number, half: number, start: number, end: number): void {
    if (this.step >= this.#steps || end === start) return;
    const last = this.#spans.at(-1);
    const same = last !== undefined && last[0] === phase && last[1] === layer && last[2] === half;
    if (same && last[3] === this.step) last[5] = end - this.#zero;
    else this.#spans.push([phase, layer, half, this.step, start - this.#zero, end - this.#zero]);
  }

  started(purpose: Purpose, layer: number, half: number, now: number, sent: number): number {
    if (this.step >= this.#steps) return -1;
    const start = now - this.#zero;
    return this.#exchanges.push([purposes.indexOf(purpose), layer, half, this.step, start, start, sent, 0]) - 1;
  }

  finished(exchange: number, now: number, received: number): void {
    const row = this.#exchanges[exchange]!;
    row[5] = now - this.#zero;
    row[7] = received;
  }

  timeline(): RankTimeline {
    const column = (rows: number[][], at: number): number[] => rows.map((row) => row[at]!);
    const shared = (rows: number[][]) => ({
      layer: Int16Array.from(column(rows, 1)),
      half: Uint8Array.from(column(rows, 2)),
      step: Int32Array.from(column(rows, 3)),
      start: Float64Array.from(column(rows, 4)),
      end: Float64Array.from(column(rows, 5)),
    });
    return {
      spans: { phase: Uint8Array.from(column(this.#spans, 0)), ...shared(this.#spans) },
      exchanges: {
        purpose: Uint8Array.from(column(this.#exchanges, 0)),
        ...shared(this.#exchanges),
        sent: Float64Array.from(column(this.#exchanges, 6)),
        received: Float64Array.from(column(this.#exchanges, 7)),
      },
    };
  }
}

/** The ranks' timelines, when all recorded one. */
export function timelinesOf(recorded: (RankTimeline | undefined)[]): RankTimeline[] | undefined {
  const timelines = recorded.filter((timeline) => timeline !== undefined);
  return timelines.length === recorded.length ? timelines : undefined;
}
