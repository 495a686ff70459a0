import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';

export interface SyntheticOptions {
  layers: number;
  experts: number;
  topK: number;
  vocabularySize: number;
  requests: number;
  tokensPerRequest: number;
  seed: number;
  /** 0 = random routing, 1 = each token's experts mostly within a cluster. */
  structure?: number;
}

/**
 * Routing with hidden structure, for developing and testing only: every layer scatters experts over clusters, a token id leans to one
 * cluster, a request's topic to another, and the k experts are those with the largest noisy scores.
 */
export function syntheticTrace(options: SyntheticOptions): RoutingTrace {
  const { layers, experts, topK, vocabularySize, requests, tokensPerRequest, seed, structure = 0.7 } = options;
  const random = new SeededRandom(seed);
  const clusters = Math.max(2, Math.min(8, Math.floor(experts / topK)));
  const clusterOf = Array.from({ length: layers }, () => {
    const order = new Int32Array(experts).map((_, i) => i);
    random.shuffle(order);
    const cluster = new Int32Array(experts);
    order.forEach((expert, i) => (cluster[expert] = i % clusters));
    return cluster;
  });
  const idCluster = Int32Array.from({ length: vocabularySize }, () => random.below(clusters));
  const idBias = new Float32Array(vocabularySize * experts).map(() => random.unit());
  const length = requests * tokensPerRequest;
  const trace: RoutingTrace = {
    model: { fingerprint: 'synthetic', layers, experts, topK, vocabularySize },
    source: 'synthetic',
    length,
    request: new Int32Array(length),
    position: new Int32Array(length),
    token: new Int32Array(length),
    phase: new Uint8Array(length),
    experts: new Uint16Array(length * layers * topK),
    weights: undefined,
    labels: Array.from({ length: requests }, (_, request) => `topic-${request % clusters}`),
  };
  const score = new Float64Array(experts);
  for (let row = 0; row < length; row++) {
    const request = Math.floor(row / tokensPerRequest);
    const token = Math.floor(vocabularySize * random.unit() ** 2.5);
    trace.request[row] = request;
    trace.position[row] = row % tokensPerRequest;
    trace.token[row] = token;
    trace.phase[row] = row % tokensPerRequest >= tokensPerRequest / 2 ? 1 : 0;
    const topic = request % clusters;
    for (let layer = 0; layer < layers; layer++) {
      const cluster = clusterOf[layer]!;
      for (let expert = 0; expert < experts; expert++) {
        const lean = (cluster[expert] === idCluster[token] ? 0.8 : 0) + (cluster[expert] === topic ? 0.5 : 0);
        score[expert] = structure * (lean + idBias[token * experts + expert]!) + random.unit();
      }
      const chosen = Array.from(score.keys())
        .sort((a, b) => score[b]! - score[a]!)
        .slice(0, topK)
        .sort((a, b) => a - b);
      trace.experts.set(chosen, (row * layers + layer) * topK);
    }
  }
  return trace;
}
