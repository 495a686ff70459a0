import { ExitStatus, SmoeError } from '../errors.ts';
import type { Plan } from '../plan/plan.ts';
import type { ReadPlacement } from './check-slots.ts';
import type { ExpertSlots } from './expert-slots.ts';
import type { ExportModel } from './export-model.ts';

/** One engine; one file each. Adding one adds a line to the table in index.ts. */
export interface EngineExporter {
  /** As given to --to. */
  name: string;
  /** For people. */
  title: string;
  /** The release whose sources this was written from and checked with. */
  version: string;
  /** How the file's name must end. */
  extension: string;
  /** Forms of the file, the default first. */
  formats: readonly string[];
  /** Ways the engine exchanges tokens between ranks, the one to use first; undefined where there is no choice. */
  backends: readonly Backend[];
  /** How attention may be parallelised for placement to save anything, the default first. */
  attention: readonly Attention[];
  /** The file's text; throws EXPORT_* errors for what the engine cannot run. */
  render(request: ExportRequest): string;
  /** How to start the engine with the file, or with a renumbered checkpoint when the request is for that. */
  start(request: ExportRequest): EngineStart;
  /** Reads a file of this engine back, shapes checked; EXPORT_INVALID. `where` names it in messages. */
  read(where: string, text: string, expected: ExpectedFile): ReadPlacement;
}

export type Attention = 'tp' | 'dp';

/** A way of exchanging tokens between ranks, and what a placement can save there. */
export interface Backend {
  name: string;
  /**
   * `rank`: a token travels once to every rank that has experts for it, which is what plans minimise. `expert`: once for every expert on
   * another rank. `everything`: every rank gets everything, so placement saves nothing. `unknown`: not read in the sources.
   */
  sends: 'rank' | 'expert' | 'everything' | 'unknown';
}

export interface ExportRequest {
  plan: Plan;
  slots: ExpertSlots;
  model: ExportModel;
  backend: Backend;
  /** One of the engine's formats, or `checkpoint`. */
  format: string;
  /** How attention is parallelised on the server. */
  attention: Attention;
  /** The file's path, as flags have to name it. */
  file: string;
  /** The model, as the launch command has to name it: the renumbered one where that is exported. */
  modelName: string;
}

/** A checkpoint whose experts are numbered as the plan places them, for every engine: no file is needed then. */
export const checkpointFormat = 'checkpoint';

export interface EngineStart {
  /** Further files, named after the first: suffix and content. */
  companions: { suffix: string; text: string }[];
  /** The command that starts the server, word by word, without the flags a user adds. */
  launch: string[];
  /** False where the engine deals with copies otherwise than the plan's figures assume. */
  promiseHolds: boolean;
  /** What more has to run in the engine for the promise to hold after all, where there is such a thing. */
  promiseNeeds?: string;
  notes: string[];
}

export interface ExpectedFile {
  format: string;
  model: ExportModel;
  ranks: number;
}

/** EXPORT_INFEASIBLE, exit status 3: the engine cannot run the plan. */
export function infeasible(message: string, hint: string): SmoeError {
  return new SmoeError('EXPORT_INFEASIBLE', message, { hint, exitStatus: ExitStatus.noFeasiblePlan });
}

/** Throws EXPORT_INFEASIBLE unless every rank owns as many experts as the others, without copies: engines that only number experts. */
export function refuseUnequal(title: string, { plan, slots }: ExportRequest): void {
  if (slots.ranks * slots.slotsPerRank === plan.experts && slots.padding === 0) return;
  const counts = Array.from({ length: plan.devices }, (_, device) =>
    plan.expertOwner.subarray(0, plan.experts).reduce((count, owner) => count + (owner === device ? 1 : 0), 0),
  );
  const copies = plan.replicas.flat(2).length;
  throw copies > 0
    ? infeasible(
        `${title} holds every expert once, and the plan has ${copies} copies`,
        'leave them out with --drop-copies (its figures then no longer hold), or solve without copies',
      )
    : infeasible(
        `${title} wants equally many experts on every rank; in layer 0 the plan has ${counts.join(', ')}`,
        'solve with equal counts: a number of devices that divides the experts, and a solver that keeps them equal',
      );
}
