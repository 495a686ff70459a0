import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { PredictionTables } from './plan.ts';
import { layerNeeds, tokenFrequency } from './prediction-tables.ts';
import { ConfidenceCounts } from './reliability.ts';

/**
 * Corrects stored confidences so that what is given with 0.8 comes true about 80 % of the time, by holding tables against requests
 * they were not made from. Ids seen rarely, or never and filled in from a neighbour, are surer of themselves than they should be,
 * so token ids are corrected by how often they were seen. Transitions rest on so many sightings that they need no correction.
 * Corrections are monotone: no device overtakes another.
 *
 * [groups][256], groups by `sightingGroup`
 */
export type Calibration = Uint8Array[];

/** Ids with fewer sightings than this, and no less than the limit before, are corrected alike. */
const groupLimits = [1, 3, 10, Number.POSITIVE_INFINITY];
/**
 * Predictions that one point of a correction rests on, at least, and pseudo-predictions in favour of the uncorrected value. High,
 * because predictions of the same request are far from independent.
 */
const fewestPerPoint = 1000;
const priorPredictions = 500;
const steps = 256;

function sightingGroup(sightings: number): number {
  return groupLimits.findIndex((limit) => sightings < limit);
}

/**
 * @param tables made from `fit`
 * @param expertOwner [L][N]
 */
export function fitCalibration(
  tables: PredictionTables,
  fit: RoutingTrace,
  heldOut: RoutingTrace,
  expertOwner: Uint16Array,
  devices: number,
): Calibration {
  const { layers, vocabularySize } = heldOut.model;
  const frequency = tokenFrequency(fit);
  const given = groupLimits.map(() => new ConfidenceCounts());
  for (let layer = 0; layer < layers; layer++) {
    const { pairs } = layerNeeds(heldOut, expertOwner, devices, layer);
    for (let row = 0; row < heldOut.length; row++) {
      const id = heldOut.token[row]!;
      if (id < 0) continue;
      const counts = given[sightingGroup(frequency[id]!)]!;
      const entry = (layer * vocabularySize + id) * devices;
      for (let device = 0; device < devices; device++)
        counts.add(tables.tokenNeeds[entry + device]!, pairs[row * devices + device]! > 0);
    }
  }
  return given.map(monotoneCorrection);
}

/** Corrects tables in place. @param trace they were made from */
export function applyCalibration(tables: PredictionTables, trace: RoutingTrace, calibration: Calibration): void {
  const { layers, vocabularySize } = trace.model;
  const frequency = tokenFrequency(trace);
  const devices = tables.tokenNeeds.length / (layers * vocabularySize);
  for (let id = 0; id < vocabularySize; id++) {
    const correction = calibration[sightingGroup(frequency[id]!)]!;
    for (let layer = 0; layer < layers; layer++) {
      const entry = layer * vocabularySize + id;
      tables.tokenConfidence[entry] = correction[tables.tokenConfidence[entry]!]!;
      for (let at = entry * devices; at < (entry + 1) * devices; at++)
        tables.tokenNeeds[at] = correction[tables.tokenNeeds[at]!]!;
    }
  }
}

/** One point of a correction: predictions of about the same confidence. Confidences are in steps of 1/255. */
interface Point {
  weight: number;
  given: number;
  right: number;
}

/**
 * [256] corrected value of each stored one: isotonic regression (pool adjacent violators) over points of enough predictions each,
 * straight lines between them, so that what differed before still does.
 */
export function monotoneCorrection(counts: ConfidenceCounts): Uint8Array {
  const points = pointsOf(counts);
  if (points.length === 0) return Uint8Array.from({ length: steps }, (_, step) => step);
  const pooled: Point[] = [];
  for (const point of points) {
    let last = point;
    for (let before = pooled.at(-1); before !== undefined && rate(before) >= rate(last); before = pooled.at(-1)) {
      pooled.pop();
      last = {
        weight: before.weight + last.weight,
        given: before.given + last.given,
        right: before.right + last.right,
      };
    }
    pooled.push(last);
  }
  // Beyond the outermost points values move by as much as those do.
  const x = pooled.map(({ given, weight }) => given / weight);
  const y = pooled.map((point) => rate(point));
  const correction = new Uint8Array(steps);
  for (let step = 0, next = 0; step < steps; step++) {
    while (next < x.length && x[next]! < step) next++;
    let value: number;
    if (next === 0) value = y[0]! + (step - x[0]!) * (x[0]! > 0 ? Math.min(1, y[0]! / x[0]!) : 0);
    else if (next === x.length) {
      const room = steps - 1 - x.at(-1)!;
      value = y.at(-1)! + (room > 0 ? (step - x.at(-1)!) * Math.min(1, (steps - 1 - y.at(-1)!) / room) : 0);
    } else value = y[next - 1]! + ((step - x[next - 1]!) / (x[next]! - x[next - 1]!)) * (y[next]! - y[next - 1]!);
    correction[step] = Math.max(0, Math.min(steps - 1, Math.round(value)));
  }
  return correction;
}

function rate({ right, weight }: Point): number {
  return right / weight;
}

/** Neighbouring confidences together until each point has enough predictions. */
function pointsOf({ given, right }: ConfidenceCounts): Point[] {
  const points: Point[] = [];
  let open: Point = { weight: 0, given: 0, right: 0 };
  const close = (): void => {
    const { weight, given: sum, right: came } = open;
    const prior = (priorPredictions * sum) / weight;
    points.push({ weight: weight + priorPredictions, given: sum + prior, right: came + prior });
    open = { weight: 0, given: 0, right: 0 };
  };
  for (let step = 0; step < steps; step++) {
    if (given[step] === 0) continue;
    open.weight += given[step]!;
    open.given += given[step]! * step;
    open.right += right[step]! * (steps - 1);
    if (open.weight >= fewestPerPoint) close();
  }
  if (open.weight > 0) close();
  return points;
}
