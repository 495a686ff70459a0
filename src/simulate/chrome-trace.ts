import type { Segment } from './step-timer.ts';

/** Events of the Trace Event Format ("JSON Object Format"), which Perfetto and chrome://tracing open. Times in microseconds. */
interface TraceEvent {
  name: string;
  cat?: string;
  /** M = metadata, X = complete event. */
  ph: 'M' | 'X';
  pid: number;
  tid: number;
  ts?: number;
  dur?: number;
  args: Record<string, unknown>;
}

/** Timelines of simulated runs: one process per run, and per rank one track that computes and one that communicates. */
export class ChromeTrace {
  readonly #events: TraceEvent[];
  readonly #ranks: number;
  readonly #steps: number;
  #runs: number;

  /** @param steps keep only so many steps of each run, for files of a size that opens */
  constructor(ranks: number, steps: number) {
    this.#events = [];
    this.#ranks = ranks;
    this.#steps = steps;
    this.#runs = 0;
  }

  /** Returns the listener for the segments of one more run. */
  addRun(name: string): (segment: Segment, step: number) => void {
    const pid = ++this.#runs;
    const metadata = (kind: string, tid: number, label: string | number): void => {
      const args = kind.endsWith('sort_index') ? { sort_index: label } : { name: label };
      this.#events.push({ name: kind, ph: 'M', pid, tid, args });
    };
    metadata('process_name', 0, name);
    metadata('process_sort_index', 0, pid);
    for (let rank = 0; rank < this.#ranks; rank++) {
      metadata('thread_name', 2 * rank + 1, `rank ${rank}, computing`);
      metadata('thread_name', 2 * rank + 2, `rank ${rank}, communicating`);
      metadata('thread_sort_index', 2 * rank + 1, 2 * rank + 1);
      metadata('thread_sort_index', 2 * rank + 2, 2 * rank + 2);
    }
    return (segment, step) => {
      if (step < this.#steps) this.#add(pid, segment, step);
    };
  }

  #add(
    pid: number,
    { kind, name, layer, start, seconds, half, rankSeconds, link, bytes }: Segment,
    step: number,
  ): void {
    const args = {
      step,
      ...(layer < 0 ? {} : { layer }),
      ...(half === 0 ? {} : { half }),
      ...(link === undefined ? {} : { waitsFor: link, bytes }),
    };
    for (let rank = 0; rank < this.#ranks; rank++) {
      const dur = (rankSeconds?.[rank] ?? seconds) * 1e6;
      if (dur === 0) continue;
      const tid = 2 * rank + (kind === 'compute' ? 1 : 2);
      this.#events.push({ name, cat: kind, ph: 'X', pid, tid, ts: start * 1e6, dur, args });
    }
  }

  toJson(): string {
    return `${JSON.stringify({ displayTimeUnit: 'ms', traceEvents: this.#events })}\n`;
  }
}
