import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import * as v from 'valibot';
import { SmoeError } from '../errors.ts';
import type { PlanPromise } from '../plan/plan.ts';
import { invalidExport } from './check-slots.ts';

const format = 'speculative-moe-export';

const schema = v.object({
  format: v.literal(format),
  version: v.literal(1),
  engine: v.string(),
  fileFormat: v.string(),
  fileSha256: v.string(),
  ranks: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_536)),
  modelFingerprint: v.string(),
});

/** The part of a sidecar by which a file is checked. */
interface CheckedSidecar {
  format: typeof format;
  version: 1;
  engine: string;
  fileFormat: string;
  fileSha256: string;
  /** Expert-parallel ranks. */
  ranks: number;
  modelFingerprint: string;
}

/**
 * What stands beside every exported file, as engines refuse keys they do not know: for which model and how many ranks it is, what the
 * plan promised, and how to start the engine with it.
 */
export interface Sidecar extends CheckedSidecar {
  engineVersion: string;
  backend: string;
  plan: { solver: string; layers: number; experts: number; topK: number };
  slotsPerRank: number;
  redundantExperts: number;
  /** Copies that only even out the ranks. */
  paddingCopies: number;
  /** Null for a plan that was not measured, or changed on export. */
  promise: PlanPromise | null;
  /** Whether the engine serves copies as the promise assumes. */
  promiseHolds: boolean;
  /** With what the promise holds all the same; null where nothing is needed, or nothing helps. */
  promiseNeeds: string | null;
  launch: string[];
  notes: string[];
}

export function sidecarPath(file: string): string {
  return `${file}.smoe.json`;
}

export function renderSidecar(sidecar: Omit<Sidecar, 'format' | 'version'>): string {
  return `${JSON.stringify({ format, version: 1, ...sidecar }, undefined, 2)}\n`;
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Undefined where there is none; EXPORT_INVALID for one that is damaged or belongs to other content. */
export function readSidecar(file: string, text: string): CheckedSidecar | undefined {
  const path = sidecarPath(file);
  if (!existsSync(path)) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new SmoeError('EXPORT_INVALID', `${path}: ${(error as Error).message}`, {
      hint: 'export the plan again',
      cause: error,
    });
  }
  const parsed = v.safeParse(schema, json);
  if (!parsed.success) {
    const issue = parsed.issues[0];
    throw invalidExport(path, `${v.getDotPath(issue) ?? 'file'}: ${issue.message}`);
  }
  if (parsed.output.fileSha256 !== sha256(text)) throw invalidExport(file, 'changed since it was exported');
  return parsed.output;
}
