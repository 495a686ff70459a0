/** Sessions, plans and requests for engine tests. */
import { fileURLToPath } from 'node:url';
import type { GenerationRequest, Layout, RunOptions, RunReport, Session } from '../../src/engine/api.ts';
import { openSession } from '../../src/engine/session.ts';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { fingerprint } from '../../src/model/fingerprint.ts';
import type { Plan } from '../../src/plan/plan.ts';
import { buildPredictionTables } from '../../src/plan/prediction-tables.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';

/** From dist/test/engine/ to the repository root. */
export const demoDirectory: string = fileURLToPath(new URL('../../../models/demo', import.meta.url));

export const layouts: readonly Layout[] = [
  { dataParallel: 1, tensorParallel: 1 },
  { dataParallel: 1, tensorParallel: 2 },
  { dataParallel: 1, tensorParallel: 4 },
  { dataParallel: 2, tensorParallel: 1 },
  { dataParallel: 2, tensorParallel: 2 },
  { dataParallel: 4, tensorParallel: 1 },
];

/** A plan that deals experts to devices at random, in equal numbers; `copies` random replicas per device and layer. */
export function randomPlan(directory: string, devices: number, seed: number, copies: number = 0): Plan {
  const checkpoint = openCheckpoint(directory);
  const { layers, experts, topK, vocabularySize } = checkpoint.config;
  const modelFingerprint = fingerprint(checkpoint);
  checkpoint.close();
  const random = new SeededRandom(seed);
  const expertOwner = new Uint16Array(layers * experts);
  const replicas: number[][][] = [];
  for (let layer = 0; layer < layers; layer++) {
    const deck = shuffled(experts, random);
    deck.forEach((expert, i) => (expertOwner[layer * experts + expert] = Math.floor((i * devices) / experts)));
    replicas.push(
      Array.from({ length: devices }, (_, device) =>
        shuffled(experts, random)
          .filter((expert) => expertOwner[layer * experts + expert] !== device)
          .slice(0, copies)
          .sort((a, b) => a - b),
      ),
    );
  }
  return {
    version: 1,
    modelFingerprint,
    devices,
    layers,
    experts,
    topK,
    vocabularySize,
    solver: 'random',
    expertOwner,
    replicas,
    prediction: undefined,
    promise: undefined,
  };
}

function shuffled(count: number, random: SeededRandom): number[] {
  const deck = Array.from({ length: count }, (_, i) => i);
  random.shuffle(deck);
  return deck;
}

/** The plan with prediction tables made from a recorded run of the requests. */
export async function withTables(directory: string, plan: Plan, requests: GenerationRequest[]): Promise<Plan> {
  const report = await withSession(directory, { dataParallel: 1, tensorParallel: 1 }, plan, (session) =>
    session.run(run({ requests, recordRouting: true })),
  );
  const best = Array.from(
    { length: plan.layers },
    (_, layer) => (['token', 'pregate', 'transition'] as const)[layer % 3]!,
  );
  return { ...plan, prediction: buildPredictionTables(report.trace!, plan.expertOwner, plan.devices, best) };
}

export function request(tokens: Iterable<number>, options: Partial<GenerationRequest> = {}): GenerationRequest {
  return {
    tokens: Int32Array.from(tokens),
    maxNewTokens: 4,
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
    stopStrings: [],
    ignoreEnd: true,
    label: '',
    ...options,
  };
}

export function run(options: Partial<RunOptions> & Pick<RunOptions, 'requests'>): RunOptions {
  return { schedule: 'dedup', predictor: 'pregate', logits: 'none', recordRouting: false, ...options };
}

export async function withSession<T>(
  directory: string,
  layout: Layout,
  plan: Plan,
  use: (session: Session) => Promise<T>,
  sizes: { maximumStepTokens?: number; cachePositions?: number; threadsPerRank?: number } = {},
): Promise<T> {
  const session = await openSession({
    modelDirectory: directory,
    layout,
    plan,
    transport: 'threads',
    maximumStepTokens: sizes.maximumStepTokens ?? 64,
    cachePositions: sizes.cachePositions ?? 1024,
    threadsPerRank: sizes.threadsPerRank ?? 1,
  });
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

/** One run in a session of its own. */
export function runOnce(
  directory: string,
  layout: Layout,
  plan: Plan,
  options: RunOptions,
  sizes: { maximumStepTokens?: number; cachePositions?: number; threadsPerRank?: number } = {},
): Promise<RunReport> {
  return withSession(directory, layout, plan, (session) => session.run(options), sizes);
}
