import { SmoeError } from '../errors.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { type ExpertPlacement, LayerPlacement } from './evaluate.ts';
import { type EmbeddingTable, nearestSeenTokens } from './nearest-token.ts';
import { averageNeeds, type NeededDevices, neededDevices } from './needed-devices.ts';
import { type LayerPredictorName, type Plan, type PredictionTables, savesScale } from './plan.ts';
import { fillTransitionTable } from './transition-table.ts';

/** Pseudo-sightings of the layer's average token that each estimate starts from: shrinks rare ids towards the prior. */
const priorSightings = 1;

/** The plan's tables, or PLAN_NO_TABLES. */
export function requirePredictionTables(plan: Plan): PredictionTables {
  if (plan.prediction !== undefined) return plan.prediction;
  throw new SmoeError('PLAN_NO_TABLES', `the plan (solver ${plan.solver}) holds no prediction tables`, {
    hint: 'solve the plan from a trace with token ids, or choose the predictor `pregate`',
  });
}

export interface TableOptions {
  /** For ids the trace never shows. */
  embedding?: EmbeddingTable | undefined;
  /** Ids that will be looked up; others may keep the average. All by default. */
  lookedUp?: ((id: number) => boolean) | undefined;
  /** Layers that the transition table looks back, 1 to `longestLookback`. */
  lookback?: number;
  /** [L][P] copies, as in the plan. */
  replicas?: number[][][];
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
  { embedding, lookedUp, lookback = 2, replicas = [] }: TableOptions = {},
): PredictionTables {
  const { layers, vocabularySize } = trace.model;
  const frequency = tokenFrequency(trace);
  const neighbour =
    embedding === undefined
      ? new Int32Array(vocabularySize).fill(-1)
      : nearestSeenTokens(embedding, frequency, lookedUp);
  const tables: PredictionTables = {
    tokenDevice: new Uint8Array(layers * vocabularySize),
    tokenConfidence: new Uint8Array(layers * vocabularySize),
    tokenNeeds: new Uint8Array(layers * vocabularySize * devices),
    transitionLookback: lookback,
    transitionNeeds: new Uint8Array(layers * devices ** (lookback + 1)),
    bestPredictor,
  };
  if (replicas.some((copies) => copies.some((experts) => experts.length > 0))) {
    const placement = { devices, expertOwner, replicas };
    tables.tokenSaves = countTokenSaves(trace, placement, frequency, neighbour);
  }
  const needed = new Int32Array(vocabularySize * devices);
  const homesBefore: Uint16Array[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const needs = neededDevices(trace, expertOwner, devices, layer);
    const average = averageNeeds(needs, devices);
    const ids = layer * vocabularySize;
    const tokenNeeds = tables.tokenNeeds.subarray(ids * devices, (ids + vocabularySize) * devices);
    countTokenNeeds(trace, needs, needed.fill(0), devices);
    for (let id = 0; id < vocabularySize; id++) {
      const source = neighbour[id]! >= 0 ? neighbour[id]! : id;
      const row = id * devices;
      let best = 0;
      for (let device = 0; device < devices; device++) {
        const sightings = needed[source * devices + device]! + priorSightings * average[device]!;
        tokenNeeds[row + device] = Math.round((255 * sightings) / (frequency[source]! + priorSightings));
        if (tokenNeeds[row + device]! > tokenNeeds[row + best]!) best = device;
      }
      tables.tokenDevice[ids + id] = best;
      tables.tokenConfidence[ids + id] = tokenNeeds[row + best]!;
    }
    const rows = devices ** (lookback + 1);
    const transition = tables.transitionNeeds.subarray(layer * rows, (layer + 1) * rows);
    fillTransitionTable(needs, homesBefore, lookback, average, transition);
    homesBefore.unshift(needs.best);
    homesBefore.length = Math.min(homesBefore.length, lookback);
  }
  return tables;
}

/** @param needed [V][P] times a token of the id needed the device; counted up */
function countTokenNeeds(
  { token, model: { topK } }: RoutingTrace,
  { lists, counts }: NeededDevices,
  needed: Int32Array,
  devices: number,
): void {
  for (let row = 0; row < counts.length; row++) {
    if (token[row]! < 0) continue;
    const base = token[row]! * devices;
    for (let at = row * topK, end = at + counts[row]!; at < end; at++) needed[base + lists[at]!]!++;
  }
}

/**
 * @param neighbour [V] id whose row is taken instead, -1 for its own
 * @returns `PredictionTables.tokenSaves`, smoothed like needs
 */
function countTokenSaves(
  trace: RoutingTrace,
  placement: ExpertPlacement,
  frequency: Int32Array,
  neighbour: Int32Array,
): Uint8Array {
  const { devices } = placement;
  const { layers, topK, vocabularySize } = trace.model;
  const table = new Uint8Array(layers * vocabularySize * devices);
  const saved = new Int32Array(vocabularySize * devices);
  const average = new Float64Array(devices);
  for (let layer = 0; layer < layers; layer++) {
    const served = new LayerPlacement(placement, trace, layer);
    saved.fill(0);
    average.fill(0);
    for (let row = 0; row < trace.length; row++) {
      const from = (row * layers + layer) * topK;
      for (let home = 0; home < devices; home++) {
        const remote = served.serve(trace.experts, from, home);
        // The last of those involved is the home, again.
        const saves = served.involvedCount - 1 - remote;
        average[home]! += saves / trace.length;
        if (trace.token[row]! >= 0) saved[trace.token[row]! * devices + home]! += saves;
      }
    }
    for (let id = 0, at = layer * vocabularySize * devices; id < vocabularySize; id++) {
      const source = neighbour[id]! >= 0 ? neighbour[id]! : id;
      for (let home = 0; home < devices; home++, at++) {
        const sightings = saved[source * devices + home]! + priorSightings * average[home]!;
        table[at] = Math.min(255, Math.round((savesScale * sightings) / (frequency[source]! + priorSightings)));
      }
    }
  }
  return table;
}
