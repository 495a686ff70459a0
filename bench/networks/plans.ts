/** The four plans under measurement, solved from the shipped profile text alone, and kept in a directory. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { contiguousPlan } from '../../src/plan/contiguous-plan.ts';
import { demoDirectory, demoProfile, readEmbedding, type ModelFacts } from '../../src/cli/model-directory.ts';
import { greedy, readDocuments, toRequests } from '../../src/cli/prompts.ts';
import { recordRouting } from '../../src/cli/recording.ts';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { fingerprint } from '../../src/model/fingerprint.ts';
import { loadTokenizer } from '../../src/model/tokenizer.ts';
import { writePlan } from '../../src/plan/plan-file.ts';
import { solvePlan } from '../../src/plan/solve.ts';
import { readTrace } from '../../src/trace/parquet.ts';
import { planNames, ranks, type PlanName } from './matrix.ts';

export function planPath(directory: string, name: PlanName): string {
  return name === 'grouped' ? join(demoDirectory, `plan-${ranks}.json`) : join(directory, `${name}.json`);
}

export function planHashes(directory: string): Record<PlanName, string> {
  const hash = (name: PlanName): string =>
    createHash('sha256')
      .update(readFileSync(planPath(directory, name)))
      .digest('hex')
      .slice(0, 16);
  return Object.fromEntries(planNames.map((name) => [name, hash(name)])) as Record<PlanName, string>;
}

export function demoModel(): ModelFacts {
  const checkpoint = openCheckpoint(demoDirectory);
  try {
    const { config } = checkpoint;
    return { directory: demoDirectory, name: 'demo', config, fingerprint: fingerprint(checkpoint) };
  } finally {
    checkpoint.close();
  }
}

/** Makes those of the plans that are not there. */
export async function makePlans(
  directory: string,
  onProgress: (what: string) => void,
  signal: AbortSignal,
): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const model = demoModel();
  const contiguous = planPath(directory, 'contiguous');
  if (!existsSync(contiguous)) writePlan(contiguous, contiguousPlan(model, ranks));
  const missing = planNames.filter((name) => !existsSync(planPath(directory, name)));
  if (missing.length === 0) return;
  const trace = join(directory, 'profile.parquet');
  if (!existsSync(trace)) {
    await recordRouting({
      model,
      requests: toRequests(readDocuments(demoProfile), loadTokenizer(demoDirectory), {
        ...{ promptTokens: 1024, maxNewTokens: 1, sampling: greedy, ignoreEnd: true, stopStrings: [] },
      }),
      out: trace,
      source: 'models/demo/heldout/profile.jsonl',
      stepTokens: 512,
      onProgress: (done, total) => onProgress(`recording the profile: ${done} of ${total} tokens`),
      signal,
    });
  }
  for (const name of missing) {
    onProgress(`solving plan ${name}`);
    const options =
      name === 'eplb' ? { solver: 'eplb' } : { replicasPerDevice: Math.round(model.config.experts / ranks / 4) };
    const embedding = readEmbedding(demoDirectory);
    writePlan(
      planPath(directory, name),
      await solvePlan(await readTrace(trace), { devices: ranks, embedding, ...options }),
    );
  }
}
