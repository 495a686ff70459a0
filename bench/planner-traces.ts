/** The profile and evaluation traces that planner recipes run on. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readTrace } from '../src/trace/parquet.ts';
import type { RoutingTrace } from '../src/trace/routing-trace.ts';

export interface TracePair {
  /** For people: of NAME-profile.parquet and NAME-evaluation.parquet. */
  name: string;
  profilePath: string;
  evaluationPath: string;
}

/** From the compiled file, dist/bench/planner-traces.js. */
const root = fileURLToPath(new URL('../..', import.meta.url));
const committed = join(root, 'bench', 'traces');

/** Every pair of a folder. */
export function pairsIn(folder: string): TracePair[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('-profile.parquet'))
    .sort()
    .map((file) => {
      const name = file.slice(0, -'-profile.parquet'.length);
      return { name, profilePath: join(folder, file), evaluationPath: join(folder, `${name}-evaluation.parquet`) };
    });
}

/** The shipped model's pair, recorded once and kept in the cache folder, then those of bench/traces. */
export function defaultPairs(): TracePair[] {
  const others = existsSync(committed) ? pairsIn(committed) : [];
  return [shippedPair(), ...others];
}

function shippedPair(): TracePair {
  const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'speculative-moe', 'bench-traces');
  mkdirSync(folder, { recursive: true });
  const pair = {
    name: 'demo',
    profilePath: join(folder, 'demo-profile.parquet'),
    evaluationPath: join(folder, 'demo-evaluation.parquet'),
  };
  record(pair.profilePath, 'profile.jsonl');
  record(pair.evaluationPath, 'evaluation.jsonl');
  return pair;
}

function record(path: string, text: string): void {
  if (existsSync(path)) return;
  console.error(`recording the shipped model's routing of ${text}, a few minutes, once: ${path}`);
  const command = [join(root, 'dist', 'src', 'cli', 'main.js'), 'trace', 'record'];
  const from = join(root, 'models', 'demo', 'heldout', text);
  execFileSync(process.execPath, [...command, '--text', from, '--out', path], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

/** Routing weights with the profile, for exflow. */
export async function readPair(pair: TracePair): Promise<{ profile: RoutingTrace; evaluation: RoutingTrace }> {
  return {
    profile: await readTrace(pair.profilePath, { weights: true }),
    evaluation: await readTrace(pair.evaluationPath),
  };
}
