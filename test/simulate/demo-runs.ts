import { readFileSync } from 'node:fs';
import { demoDirectory, demoEvaluation } from '../../src/cli/model-directory.ts';
import type { GenerationRequest, Layout, RunReport, ScheduleName, Session } from '../../src/engine/api.ts';
import { openSession } from '../../src/engine/session.ts';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import type { ModelConfig } from '../../src/model/config.ts';
import { fingerprint as fingerprintOf } from '../../src/model/fingerprint.ts';
import { loadTokenizer } from '../../src/model/tokenizer.ts';
import type { LayerPredictorName, Plan, PredictorName } from '../../src/plan/plan.ts';
import { buildPredictionTables } from '../../src/plan/prediction-tables.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';

/** The shipped model, a few short texts it never saw in training, and plans from their routing. */
export interface DemoModel {
  config: ModelConfig;
  fingerprint: string;
  requests: GenerationRequest[];
}

export function demoModel(): DemoModel {
  const checkpoint = openCheckpoint(demoDirectory);
  const { config } = checkpoint;
  const fingerprint = fingerprintOf(checkpoint);
  checkpoint.close();
  const tokenizer = loadTokenizer(demoDirectory);
  const texts = readFileSync(demoEvaluation, 'utf8').split('\n').slice(0, 50);
  const requests = [9, 23, 1, 40, 17].map((promptTokens, i): GenerationRequest => {
    const { text } = JSON.parse(texts[i * 9]!) as { text: string };
    return {
      tokens: tokenizer.encode(text).slice(0, promptTokens),
      maxNewTokens: 2 + i,
      sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
      stopStrings: [],
      ignoreEnd: true,
      label: '',
    };
  });
  return { config, fingerprint, requests };
}

/** Prompts are longer than a step, so that chunks, mixed steps and decode steps all happen. */
export const stepTokens = 36;

export function openDemo(plan: Plan, layout: Layout): Promise<Session> {
  return openSession({
    modelDirectory: demoDirectory,
    layout,
    plan,
    transport: 'threads',
    maximumStepTokens: stepTokens,
    cachePositions: 512,
  });
}

/** Of runs and replays of them. */
export const microbatchTokens = 32;

export function runDemo(
  session: Session,
  requests: GenerationRequest[],
  schedule: ScheduleName,
  predictor: PredictorName,
  overlap: boolean = false,
  oneShotTokens: number = 0,
): Promise<RunReport> {
  return session.run({
    schedule,
    predictor,
    requests,
    logits: 'none',
    recordRouting: true,
    overlap: overlap ? ['prepare', 'microbatch'] : [],
    oneShotTokens,
    microbatchTokens,
  });
}

/** Two copies on every device, of experts of its neighbour: enough that some groups are served at home. */
export function withReplicas(plan: Plan): Plan {
  const replicas = Array.from({ length: plan.layers }, (_, layer) =>
    Array.from({ length: plan.devices }, (_, device) => {
      const neighbour = (device + 1) % plan.devices;
      const owned = Array.from({ length: plan.experts }, (_, expert) => expert).filter(
        (expert) => plan.expertOwner[layer * plan.experts + expert] === neighbour,
      );
      return owned.slice(0, Math.ceil(owned.length / 2));
    }),
  );
  return { ...plan, replicas };
}

/** A plan with an unequal number of experts per device, scattered, with the tables of `trace`. */
export function unevenPlan({ config, fingerprint }: DemoModel, trace: RoutingTrace | undefined, devices: number): Plan {
  const { layers, experts, topK, vocabularySize } = config;
  const random = new SeededRandom(5);
  const expertOwner = new Uint16Array(layers * experts);
  for (let layer = 0; layer < layers; layer++) {
    const order = Int32Array.from({ length: experts }, (_, expert) => expert);
    random.shuffle(order);
    order.forEach((expert, i) => (expertOwner[layer * experts + expert] = i < devices ? i : random.below(devices)));
  }
  const bestPredictor = Array.from({ length: layers }, (_, layer): LayerPredictorName =>
    layer % 2 === 0 ? 'token' : 'transition',
  );
  return {
    ...{ version: 1, modelFingerprint: fingerprint, devices, layers, experts, topK, vocabularySize },
    solver: 'test',
    expertOwner,
    replicas: Array.from({ length: layers }, () => Array.from({ length: devices }, () => [])),
    prediction: trace === undefined ? undefined : buildPredictionTables(trace, expertOwner, devices, bestPredictor),
    promise: undefined,
  };
}
