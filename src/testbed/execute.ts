/** Carries out the steps of commands.ts; when one fails or `signal` is aborted, takes back those that were done. */
import { setImmediate } from 'node:timers/promises';
import { ExitStatus, SmoeError } from '../errors.ts';
import type { Step } from './commands.ts';

/** What steps do to the machine. */
export interface Effects {
  run(argv: string[]): unknown;
  startRelay(step: Step & { kind: 'relay' }): Promise<unknown>;
  /** Before commands are undone: ends what runs inside the namespaces. */
  endProcesses(): void;
}

export async function executeSteps(steps: Step[], effects: Effects, signal?: AbortSignal): Promise<void> {
  const undo: string[][] = [];
  try {
    for (const step of steps) {
      // Lets the handler of a pending signal run.
      await setImmediate();
      throwIfInterrupted(signal);
      if (step.kind === 'relay') {
        await effects.startRelay(step);
      } else {
        effects.run(step.argv);
        if (step.undo !== undefined) undo.push(step.undo);
      }
    }
    throwIfInterrupted(signal);
  } catch (error) {
    takeBack(undo, effects);
    throw error;
  }
}

/** Goes on where something cannot be taken back, so that the rest is. */
function takeBack(undo: string[][], effects: Effects): void {
  try {
    effects.endProcesses();
  } catch {
    // The error that led here is the one to report.
  }
  for (const argv of undo.reverse()) {
    try {
      effects.run(argv);
    } catch {
      // As above.
    }
  }
}

export function throwIfInterrupted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new SmoeError('INTERRUPTED', 'interrupted', { exitStatus: ExitStatus.interrupted });
}
