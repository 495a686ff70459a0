import { stepKinds, type StepKind } from './phase-clock.ts';
import { firstWaitPhase, type PhaseName, phaseNames } from './phases.ts';

/** Milliseconds of one rank in each phase, in steps that compute prompts and in steps that only decode. */
export type PhaseTimes = Record<StepKind, Record<PhaseName, number>>;

/** @param milliseconds [stepKinds][phases], as PhaseClock counts */
export function phaseTimes(milliseconds: Float64Array): PhaseTimes {
  const ofKind = (kind: number): Record<PhaseName, number> =>
    Object.fromEntries(
      phaseNames.map((name, phase) => [name, milliseconds[kind * phaseNames.length + phase]!]),
    ) as Record<PhaseName, number>;
  return { prefill: ofKind(stepKinds.indexOf('prefill')), decode: ofKind(stepKinds.indexOf('decode')) };
}

export function sumOfPhases(times: Record<PhaseName, number>, names: readonly PhaseName[] = phaseNames): number {
  return names.reduce((sum, name) => sum + times[name], 0);
}

/** Time inside collectives: waiting for others, and copying and summing what arrives. */
export function waitOfPhases(times: Record<PhaseName, number>): number {
  return sumOfPhases(times, phaseNames.slice(firstWaitPhase));
}
