import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { ExitStatus, SmoeError } from '../errors.ts';
import type { Plan } from '../plan/plan.ts';
import { checkAgainstPlan, checkPlacement, type ReadPlacement } from './check-slots.ts';
import { type ExpertSlots, layOutSlots, redundantExperts, slotsOfLayer } from './expert-slots.ts';
import type { ExportModel } from './export-model.ts';
import {
  type Attention,
  type Backend,
  checkpointFormat,
  type EngineExporter,
  infeasible,
  refuseUnequal,
} from './exporter.ts';
import { renumberCheckpoint } from './renumber-checkpoint.ts';
import { readSidecar, renderSidecar, sha256, sidecarPath, type Sidecar } from './sidecar.ts';
import { writeFiles } from './write-files.ts';

export interface ExportOptions {
  model: ExportModel;
  modelName: string;
  /** Ranks of the server. */
  ranks: number;
  backend: Backend;
  attention: Attention;
  format: string;
  out: string;
  /** [L][N] uses of each expert, when known. */
  popularity?: ArrayLike<number>;
  /** Write although the exchange cannot gain. */
  allowNoGain: boolean;
  /** Ends the copying of a checkpoint. */
  signal: AbortSignal;
  onProgress: (bytes: number, total: number) => void;
}

export interface ExportReport extends Sidecar {
  files: string[];
}

/** Exports a plan and reads the result back before any file gets its name. PLAN_*, EXPORT_* and CHECKPOINT_* errors. */
export async function exportPlan(exporter: EngineExporter, plan: Plan, options: ExportOptions): Promise<ExportReport> {
  const { model, backend, attention, format, out, ranks } = options;
  assertFits(plan, model, ranks);
  const noGain = whyNoGain(exporter, backend, attention);
  if (noGain !== undefined && !options.allowNoGain) {
    throw infeasible(noGain.problem, `${noGain.instead}, or write it all the same with --allow-no-gain`);
  }
  const slots = layOutSlots(plan, options.popularity);
  const renumbers = format === checkpointFormat;
  const modelName = renumbers ? out : options.modelName;
  const request = { plan, slots, model, backend, attention, format, file: out, modelName };
  if (renumbers) refuseUnequal('a renumbered checkpoint', request);
  const text = renumbers ? '' : exporter.render(request);
  const { companions, launch, promiseHolds, promiseNeeds, notes } = exporter.start(request);
  if (!renumbers) {
    const read = exporter.read(out, text, { format, model, ranks });
    checkPlacement(out, read, model.moeLayers);
    checkAgainstPlan(out, read, plan);
  }
  const sidecar = {
    ...{ engine: exporter.name, engineVersion: exporter.version, fileFormat: format, backend: backend.name },
    fileSha256: sha256(text),
    ranks,
    modelFingerprint: plan.modelFingerprint,
    plan: { solver: plan.solver, layers: plan.layers, experts: plan.experts, topK: plan.topK },
    slotsPerRank: slots.slotsPerRank,
    redundantExperts: redundantExperts(slots),
    paddingCopies: slots.padding,
    promise: plan.promise ?? null,
    promiseHolds: promiseHolds && noGain === undefined,
    promiseNeeds: noGain === undefined ? (promiseNeeds ?? null) : null,
    launch,
    notes: [...(noGain === undefined ? [] : [noGain.problem]), ...paddingNotes(slots), ...notes],
  };
  const files = [
    ...(renumbers ? [] : [{ path: out, text }]),
    ...companions.map((companion) => ({ path: `${out}${companion.suffix}`, text: companion.text })),
    { path: sidecarPath(out), text: renderSidecar(sidecar) },
  ];
  if (renumbers) {
    const expertOfPosition = Array.from({ length: plan.layers }, (_, layer) => slotsOfLayer(slots, layer));
    await renumberCheckpoint(dirname(model.path), out, {
      model,
      expertOfPosition,
      extra: [{ name: 'expert-numbers.json', text: renderNumbers(plan, model, expertOfPosition) }],
      signal: options.signal,
      onProgress: options.onProgress,
    });
  }
  writeFiles(files);
  const written = [...(renumbers ? [out] : []), ...files.map(({ path }) => path)];
  return { format: 'speculative-moe-export', version: 1, ...sidecar, files: written };
}

/** What turns numbers of a renumbered checkpoint, in routing recorded from it, back into those of the original. */
function renderNumbers(plan: Plan, model: ExportModel, expertOfPosition: number[][]): string {
  const facts = { originalFingerprint: plan.modelFingerprint, modelLayers: model.moeLayers };
  return `${JSON.stringify(facts).slice(0, -1)},"expertOfPosition":[\n${expertOfPosition.map((row) => JSON.stringify(row)).join(',\n')}\n]}\n`;
}

export interface CheckOptions {
  model: ExportModel;
  /** From the sidecar when undefined. */
  ranks: number | undefined;
  format: string | undefined;
  plan: Plan | undefined;
}

export interface CheckReport {
  file: string;
  engine: string;
  engineVersion: string;
  fileFormat: string;
  ranks: number;
  moeLayers: number;
  slotsPerRank: number;
  redundantExperts: number;
  /** Whether a sidecar stands by the file, and agrees. */
  sidecar: boolean;
  /** Whether it was compared with a plan. */
  plan: boolean;
}

/** Checks a file for an engine, wherever it came from. EXPORT_* errors. */
export function checkExport(exporter: EngineExporter, file: string, options: CheckOptions): CheckReport {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SmoeError('EXPORT_UNREADABLE', `${file}: cannot be read: ${(cause as Error).message}`, {
      hint: 'check the path and its permissions',
      cause,
    });
  }
  const { model, plan } = options;
  const sidecar = readSidecar(file, text);
  if (sidecar !== undefined && sidecar.engine !== exporter.name) {
    throw new SmoeError('EXPORT_INVALID', `${file}: exported for ${sidecar.engine}, not ${exporter.name}`, {
      hint: `check it with --to ${sidecar.engine}`,
    });
  }
  const ranks = options.ranks ?? sidecar?.ranks ?? plan?.devices;
  if (ranks === undefined) {
    throw new SmoeError('USAGE_MISSING_FLAG', '--ranks is missing: the file has no sidecar that tells', {
      hint: 'give the number of expert-parallel ranks with --ranks',
      exitStatus: ExitStatus.usage,
    });
  }
  if (sidecar !== undefined && ranks !== sidecar.ranks) throw otherRanks(sidecar.ranks, ranks);
  if (plan !== undefined) assertFits(plan, model, ranks);
  const format = options.format ?? sidecar?.fileFormat ?? exporter.formats[0]!;
  const read: ReadPlacement = exporter.read(file, text, { format, model, ranks });
  checkPlacement(file, read, model.moeLayers);
  if (plan !== undefined) checkAgainstPlan(file, read, plan);
  const slotsPerRank = read.layers[0]?.[0]?.length ?? 0;
  return {
    ...{ file, engine: exporter.name, engineVersion: exporter.version, fileFormat: format, ranks },
    moeLayers: read.layers.length,
    slotsPerRank,
    redundantExperts: ranks * slotsPerRank - model.experts,
    sidecar: sidecar !== undefined,
    plan: plan !== undefined,
  };
}

/** Throws PLAN_LAYOUT or PLAN_OTHER_MODEL unless the plan is for this model's shape and this number of ranks. */
function assertFits(plan: Plan, model: ExportModel, ranks: number): void {
  if (plan.devices !== ranks) throw otherRanks(plan.devices, ranks);
  const facts: [string, number, number | undefined][] = [
    ['MoE layers', plan.layers, model.moeLayers.length],
    ['experts', plan.experts, model.experts],
    ['experts per token', plan.topK, model.topK],
  ];
  for (const [what, ofPlan, ofModel] of facts) {
    if (ofModel === undefined || ofPlan === ofModel) continue;
    throw new SmoeError('PLAN_OTHER_MODEL', `the plan has ${ofPlan} ${what}, ${model.path} has ${ofModel}`, {
      hint:
        what === 'MoE layers'
          ? 'name the model the plan is for with --model; where its dense layers are told apart wrongly, say which with --dense-layers'
          : 'name the model the plan is for with --model',
    });
  }
}

function otherRanks(made: number, asked: number): SmoeError {
  return new SmoeError('PLAN_LAYOUT', `made for ${made} ranks, not ${asked}`, {
    hint: `start the engine on ${made} ranks, or solve a plan with --devices ${asked}`,
    exitStatus: ExitStatus.noFeasiblePlan,
  });
}

function whyNoGain(
  { title, backends, attention: gaining }: EngineExporter,
  backend: Backend,
  attention: Attention,
): { problem: string; instead: string } | undefined {
  if (backend.sends === 'everything') {
    return {
      problem: `${title} with ${backend.name} gives every token to every rank: no placement saves bytes there`,
      instead: `use --backend ${backends[0]!.name}`,
    };
  }
  if (gaining.includes(attention)) return undefined;
  return {
    problem: `${title} exchanges tokens between expert ranks only with data-parallel attention: no placement saves bytes with tensor-parallel attention`,
    instead: `use --attention ${gaining[0]!}`,
  };
}

function paddingNotes({ padding, slotsPerRank }: ExpertSlots): string[] {
  if (padding === 0) return [];
  return [
    `${padding} further copies fill every rank up to ${slotsPerRank} experts in every layer, as engines want ranks equal`,
  ];
}
