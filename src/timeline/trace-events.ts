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

/** A trace file under construction: processes with named tracks, and events on them. */
export class TraceEvents {
  readonly #events: TraceEvent[];
  #processes: number;

  constructor() {
    this.#events = [];
    this.#processes = 0;
  }

  /** Returns the new process's id. */
  addProcess(name: string): number {
    const pid = ++this.#processes;
    this.#metadata('process_name', pid, 0, { name });
    this.#metadata('process_sort_index', pid, 0, { sort_index: pid });
    return pid;
  }

  /** Tracks are shown in order of their number. */
  addTrack(pid: number, tid: number, name: string): void {
    this.#metadata('thread_name', pid, tid, { name });
    this.#metadata('thread_sort_index', pid, tid, { sort_index: tid });
  }

  /** Something that took from `start` to `end`, microseconds; events of one track must not overlap. */
  add(
    pid: number,
    tid: number,
    category: string,
    name: string,
    start: number,
    end: number,
    args: Record<string, unknown>,
  ): void {
    this.#events.push({ name, cat: category, ph: 'X', pid, tid, ts: start, dur: end - start, args });
  }

  toJson(): string {
    return `${JSON.stringify({ displayTimeUnit: 'ms', traceEvents: this.#events })}\n`;
  }

  #metadata(name: string, pid: number, tid: number, args: Record<string, unknown>): void {
    this.#events.push({ name, ph: 'M', pid, tid, args });
  }
}
