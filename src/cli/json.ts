import { purposes } from '../comm/communicator.ts';
import type { RunReport } from '../engine/api.ts';
import { serializeError } from '../errors.ts';

/** One object on stdout. What is not a number (NaN) becomes null, undefined fields are left out. */
export function renderJson(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

/** The form in which `--json` reports a failure. */
export function errorObject(error: unknown): { error: { code: string; message: string; hint: string | null } } {
  const { code, message, hint } = serializeError(error);
  return { error: { code, message, hint: hint ?? null } };
}

export type ByteFigures = RunReport['bytes'];

/** Byte counters in one order, by purpose, then the total. */
export function byteFigures(bytes: RunReport['bytes']): ByteFigures {
  const figures = Object.fromEntries(purposes.map((purpose) => [purpose, bytes[purpose]]));
  return { ...figures, total: bytes.total } as ByteFigures;
}
