import type { CommunicationRequest } from '../comm/communicator.ts';
import type { LayerInput, LayerSteps, MoeSchedule } from './schedule.ts';

/** Runs a layer to its end, waiting for each collective as it comes. */
export function runLayer(schedule: MoeSchedule, input: LayerInput): void {
  for (const request of schedule.layer(input)) request.wait();
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
): void {
  const middle = Math.ceil(input.tokens / 2);
  const turns: { steps: LayerSteps; pending: CommunicationRequest | undefined }[] = [
    { steps: halves[0].layer(part(input, 0, middle, rowBytes)), pending: undefined },
    { steps: halves[1].layer(part(input, middle, input.tokens, rowBytes)), pending: undefined },
  ];
  while (turns.length > 0) {
    for (const turn of [...turns]) {
      turn.pending?.wait();
      const next = turn.steps.next();
      if (next.done === true) turns.splice(turns.indexOf(turn), 1);
      else turn.pending = next.value;
    }
  }
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
