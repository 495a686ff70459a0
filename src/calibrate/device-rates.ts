import type { DeviceRates } from '../cluster/cluster.ts';
import { type Work, workSeconds } from '../simulate/compute-clock.ts';
import { minimizePositive, squaredLogRatio } from './pattern-search.ts';

/** One stretch of computing that was measured, and the work that it was. */
export interface MeasuredWork {
  name: string;
  work: Work[];
  seconds: number;
}

export type FittedRates = Omit<DeviceRates, 'memoryBytes' | 'predictSeconds'>;

/** A usual server core; what the measurements do not tell stays near it. */
const startingRates: FittedRates = {
  flopsPerSecond: 30e9,
  attentionFlopsPerSecond: 10e9,
  expertFlopsPerSecond: 25e9,
  memoryBytesPerSecond: 12e9,
  layerSeconds: 20e-6,
  tokenSeconds: 1e-6,
};
const fields = Object.keys(startingRates) as (keyof FittedRates)[];
/** Weight of staying near the start against fitting a measurement. */
const pull = 0.005;

/** The rates with which the simulator's own model comes nearest to the measured times, by relative error. */
export function fitRates(measured: MeasuredWork[]): FittedRates {
  const start = fields.map((field) => startingRates[field]);
  const fitted = minimizePositive(start, (values) => {
    const rates = ratesOf(values);
    const misses = measured.reduce(
      (sum, piece) => sum + squaredLogRatio(modelledSeconds(piece, rates), piece.seconds),
      0,
    );
    return misses + pull * values.reduce((sum, value, i) => sum + squaredLogRatio(value, start[i]!), 0);
  });
  return ratesOf(fitted);
}

export function modelledSeconds({ work }: MeasuredWork, rates: FittedRates): number {
  const whole = { ...rates, memoryBytes: 0, predictSeconds: 0 };
  return work.reduce((sum, piece) => sum + workSeconds(piece, whole), 0);
}

function ratesOf(values: number[]): FittedRates {
  return Object.fromEntries(fields.map((field, i) => [field, values[i]!])) as unknown as FittedRates;
}
