import { SmoeError } from '../errors.ts';
import type { Plan } from '../plan/plan.ts';
import { copiesOn, ownedBy } from './expert-slots.ts';

/** What a file for an engine says, read back: which experts are on which rank. */
export interface ReadPlacement {
  ranks: number;
  experts: number;
  /** [L] of the MoE layers, in order: [R] experts on each rank, in slot order */
  layers: number[][][];
}

/** EXPORT_INVALID: a file that an engine must not be given. */
export function invalidExport(where: string, problem: string): SmoeError {
  return new SmoeError('EXPORT_INVALID', `${where}: ${problem}`, { hint: 'export the plan again with smoe export' });
}

/**
 * Throws EXPORT_INVALID unless every expert of every layer is on some rank, none is twice on a rank, and every rank holds equally
 * many. No engine checks all of this itself.
 *
 * @param names [L] what each layer is called in messages
 */
export function checkPlacement(where: string, { ranks, experts, layers }: ReadPlacement, names: number[]): void {
  layers.forEach((onRanks, index) => {
    const at = `layer ${names[index]}`;
    if (onRanks.length !== ranks) throw invalidExport(where, `${at}: ${onRanks.length} ranks, expected ${ranks}`);
    const copies = new Int32Array(experts);
    onRanks.forEach((onRank, rank) => {
      if (onRank.length !== onRanks[0]!.length)
        throw invalidExport(where, `${at}, rank ${rank}: ${onRank.length} experts, ${onRanks[0]!.length} on rank 0`);
      const seen = new Set<number>();
      for (const expert of onRank) {
        if (!Number.isInteger(expert) || expert < 0 || expert >= experts)
          throw invalidExport(where, `${at}, rank ${rank}: expert ${String(expert)} of ${experts}`);
        if (seen.has(expert)) throw invalidExport(where, `${at}, rank ${rank}: expert ${expert} is there twice`);
        seen.add(expert);
        copies[expert]!++;
      }
    });
    const absent = copies.indexOf(0);
    if (absent >= 0) throw invalidExport(where, `${at}: expert ${absent} is on no rank`);
  });
}

/** Throws EXPORT_INVALID unless the placement puts every expert where the plan owns or copies it; more copies are no fault. */
export function checkAgainstPlan(where: string, { ranks, layers }: ReadPlacement, plan: Plan): void {
  if (ranks !== plan.devices || layers.length !== plan.layers) {
    throw invalidExport(
      where,
      `${layers.length} MoE layers on ${ranks} ranks, the plan has ${plan.layers} on ${plan.devices}`,
    );
  }
  layers.forEach((onRanks, layer) => {
    onRanks.forEach((onRank, rank) => {
      const held = new Set(onRank);
      const lost = [...ownedBy(plan, layer, rank), ...copiesOn(plan, layer, rank)].find((expert) => !held.has(expert));
      if (lost !== undefined)
        throw invalidExport(where, `MoE layer ${layer}: the plan has expert ${lost} on rank ${rank}, the file has not`);
    });
  });
}

/** Cuts a row of slots into ranks. */
export function byRank(slots: number[], ranks: number): number[][] {
  const perRank = slots.length / ranks;
  return Array.from({ length: ranks }, (_, rank) => slots.slice(rank * perRank, (rank + 1) * perRank));
}

export function parseExportJson(where: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalidExport(where, `not JSON: ${(error as Error).message}`);
  }
}

/** A list of lists of whole numbers. */
export function integerRows(where: string, field: string, value: unknown): number[][] {
  if (!Array.isArray(value)) throw invalidExport(where, `${field} is not a list`);
  return value.map((row: unknown, i) => {
    if (!Array.isArray(row) || !row.every((item) => Number.isInteger(item)))
      throw invalidExport(where, `${field}[${i}] is not a list of whole numbers`);
    return row as number[];
  });
}
