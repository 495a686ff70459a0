import { TraceEvents } from '../timeline/trace-events.ts';
import type { Segment } from './step-timer.ts';

/** Timelines of simulated runs: one process per run, and per rank one track that computes and one that communicates. */
export class ChromeTrace {
  readonly #events: TraceEvents;
  readonly #ranks: number;
  readonly #steps: number;

  /** @param steps keep only so many steps of each run, for files of a size that opens */
  constructor(ranks: number, steps: number) {
    this.#events = new TraceEvents();
    this.#ranks = ranks;
    this.#steps = steps;
  }

  /** Returns the listener for the segments of one more run. */
  addRun(name: string): (segment: Segment, step: number) => void {
    const pid = this.#events.addProcess(name);
    for (let rank = 0; rank < this.#ranks; rank++) {
      this.#events.addTrack(pid, 2 * rank + 1, `rank ${rank}, computing`);
      this.#events.addTrack(pid, 2 * rank + 2, `rank ${rank}, communicating`);
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
      const end = start + (rankSeconds?.[rank] ?? seconds);
      if (end === start) continue;
      const tid = 2 * rank + (kind === 'compute' ? 1 : 2);
      this.#events.add(pid, tid, kind, name, start * 1e6, end * 1e6, args);
    }
  }

  toJson(): string {
    return this.#events.toJson();
  }
}
