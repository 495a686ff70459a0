import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import * as v from 'valibot';
import { SmoeError } from '../errors.ts';
import { layerPredictorNames, longestLookback, type Plan } from './plan.ts';

/** A plan at rest: JSON, its typed arrays as raw DEFLATE in base64 (`owner` as uint16, little-endian; tables as uint8). */
const format = 'speculative-moe-plan';
const formatVersion = 1;

const count = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 31 - 1));
const rate = v.pipe(v.number(), v.finite(), v.minValue(0));
const figures = { localActivationRate: rate, remoteDevicesPerToken: rate, loadImbalance: rate };
const expertIds = v.array(v.pipe(v.number(), v.integer(), v.minValue(0)));

const planSchema = v.object({
  format: v.literal(format),
  version: v.literal(formatVersion),
  modelFingerprint: v.pipe(v.string(), v.minLength(1)),
  devices: v.pipe(count, v.maxValue(256)),
  layers: v.pipe(count, v.maxValue(4096)),
  experts: v.pipe(count, v.maxValue(65536)),
  topK: v.pipe(count, v.maxValue(255)),
  vocabularySize: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 31 - 1)),
  solver: v.string(),
  expertOwner: v.string(),
  replicas: v.array(v.array(expertIds)),
  prediction: v.optional(
    v.object({
      tokenDevice: v.string(),
      tokenConfidence: v.string(),
      tokenNeeds: v.string(),
      tokenSaves: v.optional(v.string()),
      // Files without it look two layers back.
      transitionLookback: v.optional(v.pipe(count, v.maxValue(longestLookback)), 2),
      transitionNeeds: v.string(),
      bestPredictor: v.array(v.picklist(layerPredictorNames)),
    }),
  ),
  promise: v.optional(v.object({ source: v.string(), tokens: count, ...figures, layers: v.array(v.object(figures)) })),
  notes: v.optional(v.array(v.string())),
});
type StoredPlan = v.InferOutput<typeof planSchema>;

/** Writes the plan to a temporary file that then takes the name; PLAN_WRITE. */
export function writePlan(path: string, plan: Plan): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, encodePlan(plan), { flush: true });
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new SmoeError('PLAN_WRITE', `${path}: cannot write the plan: ${messageOf(cause)}`, { cause });
  }
}

/** Reads and validates the whole plan; PLAN_* errors. */
export function readPlan(path: string): Plan {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SmoeError('PLAN_UNREADABLE', `${path}: cannot read the plan: ${messageOf(cause)}`, { cause });
  }
  return decodePlan(text, path);
}

/** Equal plans give equal text, solved or read, since hosts compare its hash. */
export function encodePlan(plan: Plan): string {
  const { prediction, promise, notes, expertOwner, replicas, ...facts } = plan;
  const stored: StoredPlan = {
    format,
    ...facts,
    expertOwner: pack(expertOwner),
    replicas,
    ...(prediction === undefined
      ? {}
      : {
          prediction: {
            tokenDevice: pack(prediction.tokenDevice),
            tokenConfidence: pack(prediction.tokenConfidence),
            tokenNeeds: pack(prediction.tokenNeeds),
            ...(prediction.tokenSaves === undefined ? {} : { tokenSaves: pack(prediction.tokenSaves) }),
            transitionLookback: prediction.transitionLookback,
            transitionNeeds: pack(prediction.transitionNeeds),
            bestPredictor: prediction.bestPredictor,
          },
        }),
    ...(promise === undefined ? {} : { promise }),
    ...(notes === undefined ? {} : { notes }),
  };
  return `${JSON.stringify(stored)}\n`;
}

/** @param where names the text in errors */
export function decodePlan(text: string, where: string): Plan {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw invalid(where, `not JSON: ${messageOf(cause)}`, cause);
  }
  const version = (json as { version?: unknown } | null)?.version;
  if ((json as { format?: unknown } | null)?.format === format && version !== formatVersion) {
    throw new SmoeError(
      'PLAN_VERSION',
      `${where}: plan format ${String(version)}, this program reads ${formatVersion}`,
    );
  }
  const parsed = v.safeParse(planSchema, json);
  if (!parsed.success) {
    const issue = parsed.issues[0];
    throw invalid(where, `${v.getDotPath(issue) ?? 'file'}: ${issue.message}`);
  }
  const { format: _format, expertOwner, prediction, promise, notes, ...facts } = parsed.output;
  const { layers, experts, vocabularySize, devices } = facts;
  const table = (name: keyof NonNullable<typeof prediction> & string, length: number): Uint8Array =>
    unpack(where, `prediction.${name}`, (prediction as Record<string, unknown>)[name] as string, length);
  const ownerBytes = unpack(where, 'expertOwner', expertOwner, 2 * layers * experts);
  const plan: Plan = {
    ...facts,
    expertOwner: new Uint16Array(ownerBytes.buffer, 0, layers * experts),
    prediction:
      prediction === undefined
        ? undefined
        : {
            tokenDevice: table('tokenDevice', layers * vocabularySize),
            tokenConfidence: table('tokenConfidence', layers * vocabularySize),
            tokenNeeds: table('tokenNeeds', layers * vocabularySize * devices),
            ...(prediction.tokenSaves === undefined
              ? {}
              : { tokenSaves: table('tokenSaves', layers * vocabularySize * devices) }),
            transitionLookback: prediction.transitionLookback,
            transitionNeeds: table('transitionNeeds', layers * devices ** (prediction.transitionLookback + 1)),
            bestPredictor: prediction.bestPredictor,
          },
    promise,
    ...(notes === undefined ? {} : { notes }),
  };
  validatePlan(plan, where);
  return plan;
}

/** Throws PLAN_INVALID, naming the field and layer, unless the plan is consistent in itself. */
export function validatePlan(plan: Plan, where: string): void {
  const { devices, layers, experts, topK } = plan;
  if (topK > experts) throw invalid(where, `topK ${topK} exceeds the ${experts} experts`);
  if (devices > experts)
    throw invalid(where, `${devices} devices for ${experts} experts: every device must own at least one`);
  for (let layer = 0; layer < layers; layer++) {
    const owned = new Int32Array(devices);
    for (let expert = 0; expert < experts; expert++) {
      const owner = plan.expertOwner[layer * experts + expert]!;
      if (owner >= devices)
        throw invalid(where, `expertOwner, layer ${layer}: expert ${expert} is on device ${owner} of ${devices}`);
      owned[owner]!++;
    }
    const idle = owned.indexOf(0);
    if (idle >= 0) throw invalid(where, `expertOwner, layer ${layer}: device ${idle} owns no expert`);
  }
  validateReplicas(plan, where);
  if (plan.prediction !== undefined) validateTables(plan, plan.prediction, where);
  if (plan.promise !== undefined && plan.promise.layers.length !== layers) {
    throw invalid(where, `promise.layers: ${plan.promise.layers.length} entries for ${layers} layers`);
  }
}

function validateReplicas({ replicas, devices, layers, experts, expertOwner }: Plan, where: string): void {
  if (replicas.length !== layers) throw invalid(where, `replicas: ${replicas.length} entries for ${layers} layers`);
  replicas.forEach((ofLayer, layer) => {
    if (ofLayer.length !== devices)
      throw invalid(where, `replicas, layer ${layer}: ${ofLayer.length} entries for ${devices} devices`);
    ofLayer.forEach((copies, device) => {
      const at = `replicas, layer ${layer}, device ${device}`;
      copies.forEach((expert, i) => {
        if (expert >= experts) throw invalid(where, `${at}: expert ${expert} of ${experts}`);
        if (i > 0 && expert <= copies[i - 1]!)
          throw invalid(where, `${at}: expert ${expert} after ${copies[i - 1]}, ids must ascend`);
        if (expertOwner[layer * experts + expert] === device)
          throw invalid(where, `${at}: expert ${expert} is owned by the same device`);
      });
    });
  });
}

function validateTables(plan: Plan, tables: NonNullable<Plan['prediction']>, where: string): void {
  if (tables.bestPredictor.length !== plan.layers) {
    throw invalid(where, `prediction.bestPredictor: ${tables.bestPredictor.length} entries for ${plan.layers} layers`);
  }
  const wrong = tables.tokenDevice.findIndex((device) => device >= plan.devices);
  if (wrong >= 0) {
    const at = `layer ${Math.floor(wrong / plan.vocabularySize)}, token ${wrong % plan.vocabularySize}`;
    throw invalid(where, `prediction.tokenDevice, ${at}: device ${tables.tokenDevice[wrong]} of ${plan.devices}`);
  }
}

function pack(values: Uint8Array | Uint16Array): string {
  return deflateRawSync(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), { level: 9 }).toString(
    'base64',
  );
}

/** Exactly `length` bytes in a buffer of their own, so that they can be viewed as wider elements. */
function unpack(where: string, field: string, packed: string, length: number): Uint8Array {
  let bytes: Buffer;
  try {
    bytes = inflateRawSync(Buffer.from(packed, 'base64'), { maxOutputLength: length + 1 });
  } catch (cause) {
    throw invalid(where, `${field}: ${messageOf(cause)}`, cause);
  }
  if (bytes.length !== length) throw invalid(where, `${field}: holds ${bytes.length} bytes, expected ${length}`);
  return Uint8Array.from(bytes);
}

function invalid(where: string, message: string, cause?: unknown): SmoeError {
  return new SmoeError('PLAN_INVALID', `${where}: not a usable plan: ${message}`, {
    hint: 'solve the plan again with `smoe plan`',
    ...(cause === undefined ? {} : { cause }),
  });
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
