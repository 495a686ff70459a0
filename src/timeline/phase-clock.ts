import type { Purpose } from '../comm/communicator.ts';
import { Phase, phaseNames } from './phases.ts';
import { TimelineRecorder, type RankTimeline } from './rank-timeline.ts';

/** Kinds of steps that time is kept apart for: with at least one prompt token, or decoding alone. */
export const stepKinds = ['prefill', 'decode'] as const;
export type StepKind = (typeof stepKinds)[number];

const waitPhase: Readonly<Record<Purpose, number>> = {
  attention: Phase.waitAttention,
  dispatch: Phase.waitDispatch,
  combine: Phase.waitCombine,
  control: Phase.waitControl,
};

/**
 * One rank's time by phase: always on (a change of phase costs one look at the clock, some 15 per layer), and as a
 * timeline while one is recorded. Exactly one phase is current at any time, so phases add up to the whole.
 */
export class PhaseClock {
  /** [stepKinds][phases] milliseconds. */
  readonly milliseconds: Float64Array;
  /** Layer and micro-batch (0 = whole step, 1, 2) of the phases entered from now on; -1 outside layers. */
  layer: number;
  half: number;
  #kind: number;
  #phase: number;
  #since: number;
  /** Layer and micro-batch of the current phase. */
  #layer: number;
  #half: number;
  #recorder: TimelineRecorder | undefined;

  constructor() {
    this.milliseconds = new Float64Array(stepKinds.length * phaseNames.length);
    this.layer = -1;
    this.half = 0;
    this.#kind = 0;
    this.#phase = Phase.other;
    this.#since = 0;
    this.#layer = -1;
    this.#half = 0;
    this.#recorder = undefined;
  }

  /** A run begins now, at time zero of the timeline. @param recordedSteps how many steps to record; 0 = none */
  begin(recordedSteps: number): void {
    const now = performance.now();
    this.milliseconds.fill(0);
    this.layer = -1;
    this.half = 0;
    this.#phase = Phase.other;
    this.#since = now;
    this.#layer = -1;
    this.#half = 0;
    this.#recorder = recordedSteps > 0 ? new TimelineRecorder(now, recordedSteps) : undefined;
  }

  beginStep(step: number, kind: StepKind): void {
    this.enter(Phase.other);
    this.#kind = stepKinds.indexOf(kind);
    if (this.#recorder !== undefined) this.#recorder.step = step;
  }

  /** The current phase ends and another begins; returns the phase that ended. */
  enter(phase: number): number {
    const now = performance.now();
    const ended = this.#phase;
    this.milliseconds[this.#kind * phaseNames.length + ended]! += now - this.#since;
    this.#recorder?.span(ended, this.#layer, this.#half, this.#since, now);
    this.#phase = phase;
    this.#since = now;
    this.#layer = this.layer;
    this.#half = this.half;
    return ended;
  }

  enterWait(purpose: Purpose): number {
    return this.enter(waitPhase[purpose]);
  }

  /** A blocking collective, timed as a wait. */
  waiting<T>(purpose: Purpose, collective: () => T): T {
    const before = this.enterWait(purpose);
    try {
      return collective();
    } finally {
      this.enter(before);
    }
  }

  /** A collective was started at `startedAt`; `finished` is to be called with what this returns. */
  started(purpose: Purpose, startedAt: number, sent: number): number {
    return this.#recorder?.started(purpose, this.layer, this.half, startedAt, sent) ?? -1;
  }

  /** Seen complete now. */
  finished(exchange: number, received: number): void {
    if (exchange >= 0) this.#recorder?.finished(exchange, performance.now(), received);
  }

  /** Ends the run. */
  timeline(): RankTimeline | undefined {
    this.enter(Phase.other);
    const recorded = this.#recorder?.timeline();
    this.#recorder = undefined;
    return recorded;
  }
}
