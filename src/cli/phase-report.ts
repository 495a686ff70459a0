import type { RunReport } from '../engine/api.ts';
import { stepKinds, type StepKind } from '../timeline/phase-clock.ts';
import { waitOfPhases, sumOfPhases } from '../timeline/phase-times.ts';
import { phaseNames, type PhaseName, shufflePhases } from '../timeline/phases.ts';
import { formatMilliseconds, formatShare } from './format.ts';
import { type Column, renderTable } from './table.ts';

/** Where ranks spent their time in steps of one kind. Shares are of all ranks' time together. */
export interface PhaseFigures {
  /** Mean over runs and ranks, whole run. */
  milliseconds: number;
  /** Share spent inside collectives: waiting for others, and copying and summing what arrives. */
  waiting: number;
  /** Share spent on predicting, cutting slices and permuting rows. */
  shuffling: number;
  phases: Record<PhaseName, number>;
  /** [ranks] share of each rank's own time that it waited. */
  waitingOfRank: number[];
}

export type MeasuredPhases = Record<StepKind, PhaseFigures>;

export function measuredPhases(runs: Pick<RunReport, 'phases'>[]): MeasuredPhases {
  return Object.fromEntries(stepKinds.map((kind) => [kind, figuresOf(runs, kind)])) as MeasuredPhases;
}

function figuresOf(runs: Pick<RunReport, 'phases'>[], kind: StepKind): PhaseFigures {
  const all = runs.flatMap(({ phases }) => phases.map((times) => times[kind]));
  const sum = (names?: readonly PhaseName[]): number =>
    all.reduce((total, times) => total + sumOfPhases(times, names), 0);
  const whole = sum();
  const ranks = runs[0]?.phases.length ?? 0;
  return {
    milliseconds: whole / all.length,
    waiting: all.reduce((total, times) => total + waitOfPhases(times), 0) / whole,
    shuffling: sum(shufflePhases) / whole,
    phases: Object.fromEntries(phaseNames.map((name) => [name, sum([name]) / whole])) as Record<PhaseName, number>,
    waitingOfRank: Array.from({ length: ranks }, (_, rank) => {
      const own = runs.map(({ phases }) => phases[rank]![kind]);
      const wait = own.reduce((total, times) => total + waitOfPhases(times), 0);
      return wait / own.reduce((total, times) => total + sumOfPhases(times), 0);
    }),
  };
}

/** Share of all steps' time together; 0 where nothing was measured. */
export function shufflingShare(phases: MeasuredPhases): number {
  const kinds = stepKinds.map((kind) => phases[kind]).filter(({ milliseconds }) => milliseconds > 0);
  const whole = kinds.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  return kinds.reduce((sum, { milliseconds, shuffling }) => sum + (milliseconds / whole) * shuffling, 0);
}

/** A column per run, a row per phase, and what each rank waited; steps of a kind that never happened are left out. */
export function renderPhases(runs: { name: string; phases: MeasuredPhases }[]): string {
  const parts = stepKinds.map((kind) => {
    if (!runs.some(({ phases }) => phases[kind].milliseconds > 0)) return '';
    const ranks = runs[0]!.phases[kind].waitingOfRank.length;
    const row = (title: string, cell: (figures: PhaseFigures) => string): string[] => [
      title,
      ...runs.map(({ phases }) => cell(phases[kind])),
    ];
    const columns: Column[] = [
      { title: kind === 'decode' ? 'steps that only decode' : 'steps with prompts', align: 'left' },
      ...runs.map(({ name }): Column => ({ title: name, align: 'right' })),
    ];
    return renderTable(columns, [
      row('time of a rank', ({ milliseconds }) => formatMilliseconds(milliseconds)),
      row('computing', ({ waiting }) => formatShare(1 - waiting)),
      row('waiting', ({ waiting }) => formatShare(waiting)),
      ...Array.from({ length: ranks }, (_, rank) =>
        row(`  rank ${rank}`, ({ waitingOfRank }) => formatShare(waitingOfRank[rank]!)),
      ),
      row('shuffling', ({ shuffling }) => formatShare(shuffling)),
      ...phaseNames.map((name) => row(`  ${name}`, ({ phases }) => formatShare(phases[name]))),
    ]);
  });
  return parts.filter((part) => part !== '').join('\n');
}
