import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { SmoeError } from '../errors.ts';
import { loadTokenizer } from '../model/tokenizer.ts';
import type { Plan } from '../plan/plan.ts';
import { readPlan, writePlan } from '../plan/plan-file.ts';
import { solvePlan } from '../plan/solve.ts';
import { readTrace } from '../trace/parquet.ts';
import type { Console } from './console.ts';
import type { Flags } from './flags.ts';
import { formatCount } from './format.ts';
import { demoDirectory, demoProfile, type ModelFacts, readEmbedding, shortPath } from './model-directory.ts';
import { greedy, readDocuments, toRequests } from './prompts.ts';
import { recordRouting } from './recording.ts';

export interface ResolvedPlan {
  plan: Plan;
  /** The file it was read from or written to. */
  path: string;
}

export interface PlanQuestion {
  model: ModelFacts;
  devices: number;
  /** --plan */
  explicit: string | undefined;
  /** --profile */
  profile: string | undefined;
  cacheDirectory: string;
}

export type PlanSource =
  | { kind: 'given' | 'shipped' | 'cached'; path: string }
  | { kind: 'solve'; path: string; profile: string; trace: string };

/** Longest text of the profile that is recorded, in tokens. */
const profileTokens = 1024;
const profileStepTokens = 512;

/**
 * Where the plan comes from, in this order: the one named; the shipped one for that many devices; one solved before; one to
 * solve now. A named profile passes the shipped plan over. Looks at files, changes none.
 *
 * @param fits whether a plan file is for this model and number of devices
 */
export function choosePlanSource(question: PlanQuestion, fits: (path: string) => boolean): PlanSource {
  const { model, devices, explicit, cacheDirectory } = question;
  if (explicit !== undefined) return { kind: 'given', path: explicit };
  const shipped = join(demoDirectory, `plan-${devices}.json`);
  if (question.profile === undefined && existsSync(shipped) && fits(shipped)) return { kind: 'shipped', path: shipped };
  const profile = question.profile ?? demoProfile;
  if (!existsSync(profile)) {
    throw new SmoeError('PROFILE_NOT_FOUND', `${profile}: no such file`, {
      hint: 'name a .jsonl or .txt file with --profile',
    });
  }
  const text = createHash('sha256').update(readFileSync(profile)).digest('hex').slice(0, 8);
  const path = join(cacheDirectory, `plan-${model.fingerprint}-${text}-${devices}.json`);
  if (existsSync(path) && fits(path)) return { kind: 'cached', path };
  return { kind: 'solve', path, profile, trace: join(cacheDirectory, `trace-${model.fingerprint}-${text}.parquet`) };
}

/** A plan of `devices` devices for the model, solved and cached if need be; stderr says which. */
export async function resolvePlan(
  question: PlanQuestion,
  console: Console,
  signal: AbortSignal,
): Promise<ResolvedPlan> {
  const { model, devices } = question;
  const source = choosePlanSource(question, (path) => fitsModel(path, model.fingerprint, devices));
  if (source.kind !== 'solve') {
    console.log(`plan: ${source.kind}, ${shortPath(source.path)}`);
    return { plan: readPlan(source.path), path: source.path };
  }
  mkdirSync(question.cacheDirectory, { recursive: true });
  if (!existsSync(source.trace)) await recordProfile(model, source.profile, source.trace, console, signal);
  console.log(`plan: solving for ${formatCount(devices, 'device')}`);
  const plan = await solvePlan(await readTrace(source.trace), {
    devices,
    embedding: readEmbedding(model.directory),
    signal,
    onProgress: (done, layers) => console.progress(`solving: layer ${done} of ${layers}`),
  });
  writePlan(source.path, plan);
  console.log(`plan: solved, kept as ${shortPath(source.path)}`);
  return { plan, path: source.path };
}

/** A file that cannot be read, such as one of an older format, fits nothing. */
function fitsModel(path: string, fingerprint: string, devices: number): boolean {
  try {
    const plan = readPlan(path);
    return plan.modelFingerprint === fingerprint && plan.devices === devices;
  } catch (error) {
    if (error instanceof SmoeError) return false;
    throw error;
  }
}

async function recordProfile(
  model: ModelFacts,
  profile: string,
  out: string,
  console: Console,
  signal: AbortSignal,
): Promise<void> {
  console.log(`plan: none for this model yet; recording the routing of ${shortPath(profile)}`);
  const promptTokens = Math.min(profileTokens, model.config.maximumPositions - 1);
  const requests = toRequests(readDocuments(profile), loadTokenizer(model.directory), {
    promptTokens,
    maxNewTokens: 1,
    sampling: greedy,
    ignoreEnd: true,
    stopStrings: [],
  });
  const rows = await recordRouting({
    model,
    requests,
    out,
    source: profile === demoProfile ? 'models/demo/heldout/profile.jsonl' : profile,
    stepTokens: profileStepTokens,
    onProgress: (done, total) => console.progress(`recording: ${done} of ${total} tokens`),
    signal,
  });
  console.log(`plan: recorded ${rows} tokens of ${formatCount(requests.length, 'text')}`);
}

/** --cache (SMOE_CACHE), else the user's cache directory. */
export function cacheDirectory(flags: Flags, environment: Record<string, string | undefined> = process.env): string {
  return flags.optional('cache') ?? join(environment.XDG_CACHE_HOME || join(homedir(), '.cache'), 'speculative-moe');
}
