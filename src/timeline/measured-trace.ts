import { purposes } from '../comm/communicator.ts';
import { firstWaitPhase, phaseNames } from './phases.ts';
import type { RankTimeline } from './rank-timeline.ts';
import { TraceEvents } from './trace-events.ts';

/** Most collectives of a rank that are drawn side by side. */
const lanes = 16;

/**
 * Measured timelines as a trace: one process per run; per rank a track of what it does (phases, waits among them) and tracks of its
 * collectives, from their start to when the rank saw them complete, with the bytes sent to and received from other ranks. Ranks' clocks are
 * set to zero as they leave the barrier that begins a run.
 */
export class MeasuredTrace {
  readonly #events: TraceEvents;

  constructor() {
    this.#events = new TraceEvents();
  }

  addRun(name: string, ranks: RankTimeline[]): void {
    const pid = this.#events.addProcess(name);
    ranks.forEach((timeline, rank) => {
      const firstTrack = rank * (lanes + 1) + 1;
      this.#events.addTrack(pid, firstTrack, `rank ${rank}`);
      this.#addSpans(pid, firstTrack, timeline);
      this.#addExchanges(pid, rank, firstTrack + 1, timeline);
    });
  }

  toJson(): string {
    return this.#events.toJson();
  }

  #addSpans(pid: number, track: number, { spans }: RankTimeline): void {
    spans.phase.forEach((phase, i) => {
      const category = phase >= firstWaitPhase ? 'waiting' : 'computing';
      const [start, end] = [spans.start[i]! * 1000, spans.end[i]! * 1000];
      const args = place(spans.step[i]!, spans.layer[i]!, spans.half[i]!);
      this.#events.add(pid, track, category, phaseNames[phase]!, start, end, args);
    });
  }

  /** Each goes to the first track that is free again; several are in flight when work overlaps. */
  #addExchanges(pid: number, rank: number, firstTrack: number, { exchanges }: RankTimeline): void {
    const freeAt: number[] = [];
    exchanges.purpose.forEach((purpose, i) => {
      const [start, end] = [exchanges.start[i]! * 1000, exchanges.end[i]! * 1000];
      let lane = freeAt.findIndex((free) => free <= start);
      if (lane === -1) lane = freeAt.length;
      if (lane >= lanes) return;
      if (lane === freeAt.length) this.#events.addTrack(pid, firstTrack + lane, `rank ${rank}, in flight ${lane + 1}`);
      freeAt[lane] = end;
      const args = {
        ...place(exchanges.step[i]!, exchanges.layer[i]!, exchanges.half[i]!),
        sent: exchanges.sent[i]!,
        received: exchanges.received[i]!,
      };
      this.#events.add(pid, firstTrack + lane, 'exchange', purposes[purpose]!, start, end, args);
    });
  }
}

function place(step: number, layer: number, half: number): Record<string, number> {
  return { step, ...(layer < 0 ? {} : { layer }), ...(half === 0 ? {} : { half }) };
}
