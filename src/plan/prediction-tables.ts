import { SmoeError } from '../errors.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { type EmbeddingTable, nearestSeenTokens } from './nearest-token.ts';
import type { LayerPredictorName, Plan, PredictionTables } from './plan.ts';

/** Pseudo-sightings of the layer's average token that each estimate starts from: shrinks rare ids towards the prior. */
const priorSightings = 1;

/** The plan's tables, or PLAN_NO_TABLES. */
export function requirePredictionTables(plan: Plan): PredictionTables {
  if (plan.prediction !== undefined) return plan.prediction;
  throw new SmoeError('PLAN_NO_TABLES', `the plan (solver ${plan.solver}) holds no prediction tables`, {
    hint: 'solve the plan from a trace with token ids, or choose the predictor `pregate`',
  });
}

/** Which devices each token of one layer needs. n = tokens, P = devices. */
export interface LayerNeeds {
  /** [n][P] routed pairs on the device */
  pairs: Uint8Array;
  /** [n] device with most pairs, ties to the lower: the token's best home */
  bestDevice: Uint16Array;
}

/** @param expertOwner [L][N] */
export function layerNeeds(trace: RoutingTrace, expertOwner: Uint16Array, devices: number, layer: number): LayerNeeds {
  const { layers, topK, experts } = trace.model;
  const pairs = new Uint8Array(trace.length * devices);
  const bestDevice = new Uint16Array(trace.length);
  for (let row = 0; row < trace.length; row++) {
    const from = (row * layers + layer) * topK;
    const base = row * devices;
    for (let i = 0; i < topK; i++) pairs[base + expertOwner[layer * experts + trace.experts[from + i]!]!]!++;
    let best = 0;
    for (let device = 1; device < devices; device++) {
      if (pairs[base + device]! > pairs[base + best]!) best = device;
    }
    bestDevice[row] = best;
  }
  return { pairs, bestDevice };
}

/** [V] occurrences of each token id. */
export function tokenFrequency(trace: RoutingTrace): Int32Array {
  const frequency = new Int32Array(trace.model.vocabularySize);
  for (const id of trace.token) {
    if (id >= 0) frequency[id]!++;
  }
  return frequency;
}

/**
 * Builds the tables of every table predictor from a profile (docs/method.md, token shuffling). Estimates are smoothed towards the
 * layer's average token; ids never seen take the row of their nearest neighbour by embedding, or the average without one.
 *
 * @param expertOwner [L][N]
 * @param bestPredictor [L]
 */
export function buildPredictionTables(
  trace: RoutingTrace,
  expertOwner: Uint16Array,
  devices: number,
  bestPredictor: LayerPredictorName[],
  embedding?: EmbeddingTable,
): PredictionTables {
  const { layers, vocabularySize } = trace.model;
  const frequency = tokenFrequency(trace);
  const neighbour =
    embedding === undefined ? new Int32Array(vocabularySize).fill(-1) : nearestSeenTokens(embedding, frequency);
  const tables: PredictionTables = {
    tokenDevice: new Uint8Array(layers * vocabularySize),
    tokenConfidence: new Uint8Array(layers * vocabularySize),
    tokenNeeds: new Uint8Array(layers * vocabularySize * devices),
    transitionNeeds: new Uint8Array(layers * devices ** 3),
    bestPredictor,
  };
  let before: LayerNeeds | undefined;
  let twoBefore: LayerNeeds | undefined;
  for (let layer = 0; layer < layers; layer++) {
    const needs = layerNeeds(trace, expertOwner, devices, layer);
    const prior = averageNeeds(needs, trace.length, devices);
    const tokenNeeds = tables.tokenNeeds.subarray(
      layer * vocabularySize * devices,
      (layer + 1) * vocabularySize * devices,
    );
    fillTokenNeeds(trace, needs, prior, frequency, neighbour, tokenNeeds);
    for (let id = 0; id < vocabularySize; id++) {
      let best = 0;
      for (let device = 1; device < devices; device++) {
        if (tokenNeeds[id * devices + device]! > tokenNeeds[id * devices + best]!) best = device;
      }
      tables.tokenDevice[layer * vocabularySize + id] = best;
      tables.tokenConfidence[layer * vocabularySize + id] = tokenNeeds[id * devices + best]!;
    }
    const transition = tables.transitionNeeds.subarray(layer * devices ** 3, (layer + 1) * devices ** 3);
    fillTransitionNeeds(needs, before, twoBefore, prior, transition);
    twoBefore = before;
    before = needs;
  }
  return tables;
}

/** [P] share of tokens that need each device. */
function averageNeeds({ pairs }: LayerNeeds, tokens: number, devices: number): Float64Array {
  const average = new Float64Array(devices);
  for (let at = 0; at < pairs.length; at++) {
    if (pairs[at]! > 0) average[at % devices]! += 1 / tokens;
  }
  return average;
}

/** @param tokenNeeds [V][P] output */
function fillTokenNeeds(
  trace: RoutingTrace,
  { pairs }: LayerNeeds,
  prior: Float64Array,
  frequency: Int32Array,
  neighbour: Int32Array,
  tokenNeeds: Uint8Array,
): void {
  const devices = prior.length;
  const vocabularySize = frequency.length;
  const needed = new Int32Array(vocabularySize * devices);
  for (let row = 0; row < trace.length; row++) {
    const id = trace.token[row]!;
    if (id < 0) continue;
    for (let device = 0; device < devices; device++)
      needed[id * devices + device]! += pairs[row * devices + device]! > 0 ? 1 : 0;
  }
  for (let id = 0; id < vocabularySize; id++) {
    const source = neighbour[id]! >= 0 ? neighbour[id]! : id;
    for (let device = 0; device < devices; device++) {
      const probability =
        (needed[source * devices + device]! + priorSightings * prior[device]!) / (frequency[source]! + priorSightings);
      tokenNeeds[id * devices + device] = Math.round(255 * probability);
    }
  }
}

/** @param transition [P*P][P] output, see PredictionTables.transitionNeeds */
function fillTransitionNeeds(
  needs: LayerNeeds,
  before: LayerNeeds | undefined,
  twoBefore: LayerNeeds | undefined,
  prior: Float64Array,
  transition: Uint8Array,
): void {
  const devices = prior.length;
  const histories = devices * devices;
  const seen = new Float64Array(histories);
  const needed = new Float64Array(histories * devices);
  for (let row = 0; row < needs.bestDevice.length; row++) {
    const first = before === undefined ? 0 : before.bestDevice[row]!;
    const second = twoBefore === undefined ? 0 : twoBefore.bestDevice[row]!;
    const history = first * devices + second;
    seen[history]!++;
    for (let device = 0; device < devices; device++)
      needed[history * devices + device]! += needs.pairs[row * devices + device]! > 0 ? 1 : 0;
  }
  for (let history = 0; history < histories; history++) {
    // Where a home before is not known, its index is 0 above: every history shares that row.
    const first = before === undefined ? 0 : Math.floor(history / devices);
    const second = twoBefore === undefined ? 0 : history % devices;
    const source = first * devices + second;
    for (let device = 0; device < devices; device++) {
      const probability =
        (needed[source * devices + device]! + priorSightings * prior[device]!) / (seen[source]! + priorSightings);
      transition[history * devices + device] = Math.round(255 * probability);
    }
  }
}
