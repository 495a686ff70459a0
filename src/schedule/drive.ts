import type { PhaseClock } from '../timeline/phase-clock.ts';
import type { Collective } from './collective.ts';
import type { LayerInput, LayerSteps, MoeSchedule } from './schedule.ts';

/** Runs a layer to its end, waiting for each collective as it comes. */
export function runLayer(schedule: MoeSchedule, input: LayerInput, clock: PhaseClock): void {
  for (const collective of schedule.layer(input)) complete(collective, started(collective, clock), clock);
}

function started({ purpose, sent, received }: Collective, clock: PhaseClock): number {
  return clock.started(purpose, sent, received);
}

function complete({ request, purpose }: Collective, exchange: number, clock: PhaseClock): void {
  clock.enterWait(purpose);
  request.wait();
  clock.finished(exchange);
}

/**
 * Runs a layer as two micro-batches that take turns: while one waits for a collective, the other computes. Rows do not
 * depend on each other, so no bit changes. All ranks must call this for the same layers; a half may be empty.
 *
 * @param halves two schedules with buffers of their own
 * @param rowBytes bytes of a hidden row
 */
export function runLayerOverlapped(
  halves: readonly [MoeSchedule, MoeSchedule],
  input: LayerInput,
  rowBytes: number,
  clock: PhaseClock,
): void {
  const middle = Math.ceil(input.tokens / 2);
  const turns: { half: number; steps: LayerSteps; pending: Collective | undefined; exchange: number }[] = [
    { half: 1, steps: halves[0].layer(part(input, 0, middle, rowBytes)), pending: undefined, exchange: -1 },
    { half: 2, steps: halves[1].layer(part(input, middle, input.tokens, rowBytes)), pending: undefined, exchange: -1 },
  ];
  while (turns.length > 0) {
    for (const turn of [...turns]) {
      clock.half = turn.half;
      if (turn.pending !== undefined) complete(turn.pending, turn.exchange, clock);
      const next = turn.steps.next();
      if (next.done === true) turns.splice(turns.indexOf(turn), 1);
      else {
        turn.pending = next.value;
        turn.exchange = started(next.value, clock);
      }
    }
  }
  clock.half = 0;
}

/** Tokens `first .. end` of a layer's input. */
function part(input: LayerInput, first: number, end: number, rowBytes: number): LayerInput {
  return {
    layer: input.layer,
    tokens: end - first,
    tokenIds: input.tokenIds.subarray(first, end),
    recordRows: input.recordRows.subarray(first, end),
    hidden: input.hidden + first * rowBytes,
    attention: input.attention + first * rowBytes,
  };
}
