import type { PhaseClock } from '../timeline/phase-clock.ts';
import type { Collective } from './collective.ts';
import type { LayerSteps } from './schedule.ts';

interface Turn {
  /** 0 = the whole step, 1 and 2 = its micro-batches. */
  half: number;
  steps: LayerSteps;
  layer: number;
  pending: Collective | undefined;
  exchange: number;
}

/**
 * Runs one forward pass to its end, or two micro-batches of one that take turns: while one waits for a collective, the other
 * computes. All ranks must take the same turns, so a turn always ends at the next collective, ready or not.
 */
export function drive(parts: LayerSteps[], clock: PhaseClock): void {
  const turns = parts.map((steps, i): Turn => {
    return { half: parts.length === 1 ? 0 : i + 1, steps, layer: -1, pending: undefined, exchange: -1 };
  });
  while (turns.length > 0) {
    for (const turn of [...turns]) {
      clock.half = turn.half;
      clock.layer = turn.layer;
      if (turn.pending !== undefined) complete(turn.pending, turn.exchange, clock);
      const next = turn.steps.next();
      turn.layer = clock.layer;
      if (next.done === true) {
        turns.splice(turns.indexOf(turn), 1);
        continue;
      }
      turn.pending = next.value;
      turn.exchange = clock.started(next.value.purpose, next.value.startedAt, next.value.sent);
    }
  }
  clock.half = 0;
  clock.layer = -1;
}

function complete({ request, purpose, received }: Collective, exchange: number, clock: PhaseClock): void {
  clock.enterWait(purpose);
  request.wait();
  clock.finished(exchange, received());
}
