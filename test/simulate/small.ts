import { decodeCluster } from '../../src/cluster/cluster-file.ts';
import type { Cluster } from '../../src/cluster/cluster.ts';
import type { Plan } from '../../src/plan/plan.ts';
import { buildPredictionTables } from '../../src/plan/prediction-tables.ts';
import type { ModelShape } from '../../src/simulate/model-shape.ts';
import type { SimulationOptions } from '../../src/simulate/simulate.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

/** A small made-up model, for what does not depend on real routing. */
export const smallShape: ModelShape = {
  ...{ layers: 3, experts: 8, topK: 2, hiddenSize: 64, heads: 8, keyValueHeads: 4, headDimension: 16, expertWidth: 32 },
  ...{ vocabularySize: 50, tiedEmbeddings: true, activationBytes: 4, weightBytes: 2 },
};

export function smallTrace(requests: number = 12, tokensPerRequest: number = 20): RoutingTrace {
  const { layers, experts, topK, vocabularySize } = smallShape;
  return syntheticTrace({ layers, experts, topK, vocabularySize, requests, tokensPerRequest, seed: 3 });
}

/** Experts dealt out in turn. */
export function smallPlan(trace: RoutingTrace, devices: number): Plan {
  const { fingerprint, layers, experts, topK, vocabularySize } = trace.model;
  const expertOwner = Uint16Array.from({ length: layers * experts }, (_, i) => (i % experts) % devices);
  const best = Array.from({ length: layers }, () => 'token' as const);
  return {
    ...{ version: 1, modelFingerprint: fingerprint, devices, layers, experts, topK, vocabularySize, solver: 'dealt' },
    expertOwner,
    replicas: Array.from({ length: layers }, () => Array.from({ length: devices }, () => [])),
    prediction: buildPredictionTables(trace, expertOwner, devices, best),
    promise: undefined,
  };
}

/** Two hosts of two devices; inside ten times as fast as between. */
export function smallCluster(fields: Record<string, unknown> = {}): Cluster {
  const stored = {
    name: 'two hosts',
    device: { gigaflops: 10, memoryGBps: 10, memoryGB: 1 },
    inside: { gigabitsPerSecond: 8, latencyUs: 2, messageUs: 0.5 },
    between: { gigabitsPerSecond: 0.8, latencyUs: 20, messageUs: 1 },
    nodes: [{ count: 2, devices: 2 }],
    ...fields,
  };
  return decodeCluster(JSON.stringify(stored), 'two hosts');
}

export function smallSimulation(change: Partial<SimulationOptions> = {}): SimulationOptions {
  const trace = change.trace ?? smallTrace();
  return {
    ...{
      trace,
      shape: smallShape,
      plan: smallPlan(trace, 4),
      schedule: 'dedup',
      predictor: 'token',
      overlap: false,
      microbatchTokens: 32,
    },
    layout: { dataParallel: 1, tensorParallel: 4 },
    composition: { stepTokens: 64, decodeBatch: 64, phases: 'recorded' },
    clusters: [smallCluster()],
    ...change,
  };
}
