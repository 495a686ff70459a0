import { badRecord } from '../bad-record.ts';
import type { Where } from '../trace-sink.ts';

/** JSON of one record, or TRACE_BAD_RECORD. */
export function parseJson(where: Where, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw badRecord(
      where(),
      `not JSON: ${(error as Error).message}`,
      'the file is damaged or cut off here, or of another format',
    );
  }
}

export function asObject(where: Where, value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw badRecord(where(), `expected an object, found ${kindOf(value)}`);
}

export function asArray(where: Where, field: string, value: unknown): unknown[] {
  if (Array.isArray(value)) return value;
  throw badRecord(where(), `${field}: expected a list, found ${kindOf(value)}`);
}

export function asInteger(
  where: Where,
  field: string,
  value: unknown,
  least: number = 0,
  most: number = 2 ** 31 - 1,
): number {
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
  throw badRecord(where(), `${field}: expected an integer from ${least} to ${most}, found ${kindOf(value)}`);
}

/** A list of numbers, copied to `target` from `at` on. */
export function copyNumbers(where: Where, field: string, value: unknown, target: number[], at: number): number {
  const list = asArray(where, field, value);
  for (const [i, item] of list.entries()) {
    if (typeof item !== 'number') throw badRecord(where(), `${field}[${i}]: expected a number, found ${kindOf(item)}`);
    target[at + i] = item;
  }
  return list.length;
}

/**
 * A row's experts, a list per MoE layer, flattened to [L][k]; every layer must hold as many as the first.
 *
 * @returns k
 */
export function flattenLayers(where: Where, field: string, layers: unknown[], target: number[]): number {
  let topK = 0;
  let at = 0;
  for (const [layer, ids] of layers.entries()) {
    const count = copyNumbers(where, `${field}[${layer}]`, ids, target, at);
    if (layer === 0) topK = count;
    else if (count !== topK) {
      throw badRecord(
        where(),
        `${field}[${layer}]: ${count} experts, ${topK} in the layers before`,
        'every layer needs the same k',
      );
    }
    at += count;
  }
  target.length = at;
  return topK;
}

/** For messages: short values as they are, others by kind. */
export function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null || typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  return Array.isArray(value) ? 'a list' : 'an object';
}
