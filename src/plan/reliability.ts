import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { PredictionTables } from './plan.ts';
import { layerNeeds } from './prediction-tables.ts';

/** Predictions of similar confidence, and how often they came true. */
export interface ReliabilityBin {
  from: number;
  to: number;
  predictions: number;
  /** Mean confidence, and share that came true; NaN without predictions. */
  confidence: number;
  frequency: number;
}

export interface Reliability {
  predictions: number;
  /** Mean |confidence - frequency|, weighted by predictions. */
  calibrationError: number;
  bins: ReliabilityBin[];
}

/** Of every table of a plan. `tokenConfidence` is about `tokenDevice` alone, the others about every device. */
export interface TableReliability {
  tokenConfidence: Reliability;
  tokenNeeds: Reliability;
  transitionNeeds: Reliability;
}

const steps = 256;

/** How often each stored confidence 0..255 was given, and came true. */
export class ConfidenceCounts {
  /** [256] */
  readonly given: Float64Array = new Float64Array(steps);
  readonly right: Float64Array = new Float64Array(steps);

  add(confidence: number, cameTrue: boolean): void {
    this.given[confidence]!++;
    if (cameTrue) this.right[confidence]!++;
  }

  merge(other: ConfidenceCounts): void {
    for (let step = 0; step < steps; step++) {
      this.given[step]! += other.given[step]!;
      this.right[step]! += other.right[step]!;
    }
  }

  reliability(binCount: number = 10): Reliability {
    const bins: ReliabilityBin[] = [];
    let predictions = 0;
    let error = 0;
    for (let bin = 0; bin < binCount; bin++) {
      let given = 0;
      let right = 0;
      let sum = 0;
      const end = bin === binCount - 1 ? steps : Math.ceil(((bin + 1) * (steps - 1)) / binCount);
      for (let step = Math.ceil((bin * (steps - 1)) / binCount); step < end; step++) {
        given += this.given[step]!;
        right += this.right[step]!;
        sum += (this.given[step]! * step) / (steps - 1);
      }
      bins.push({
        from: bin / binCount,
        to: (bin + 1) / binCount,
        predictions: given,
        confidence: sum / given,
        frequency: right / given,
      });
      predictions += given;
      error += Math.abs(sum - right);
    }
    return { predictions, calibrationError: error / predictions, bins };
  }
}

/** What the tables of one layer said about the tokens of a trace, and whether it came true. */
export interface LayerCounts {
  tokenConfidence: ConfidenceCounts;
  tokenNeeds: ConfidenceCounts;
  transitionNeeds: ConfidenceCounts;
}

/**
 * Holds the tables against a trace that they were not made from. Tokens are at home on their best device, as the tables assume;
 * rows without a token id count for the transitions only.
 *
 * @param expertOwner [L][N]
 * @returns [L]
 */
export function countConfidences(
  tables: PredictionTables,
  trace: RoutingTrace,
  expertOwner: Uint16Array,
  devices: number,
): LayerCounts[] {
  const { layers, vocabularySize } = trace.model;
  const counts: LayerCounts[] = [];
  const { transitionLookback, transitionNeeds } = tables;
  const homesBefore: Uint16Array[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const needs = layerNeeds(trace, expertOwner, devices, layer);
    const ofLayer: LayerCounts = {
      tokenConfidence: new ConfidenceCounts(),
      tokenNeeds: new ConfidenceCounts(),
      transitionNeeds: new ConfidenceCounts(),
    };
    for (let row = 0; row < trace.length; row++) {
      let history = 0;
      for (let back = 0; back < transitionLookback; back++)
        history = history * devices + (homesBefore[back]?.[row] ?? 0);
      const transition = (layer * devices ** transitionLookback + history) * devices;
      for (let device = 0; device < devices; device++) {
        const needed = needs.pairs[row * devices + device]! > 0;
        ofLayer.transitionNeeds.add(transitionNeeds[transition + device]!, needed);
      }
      const id = trace.token[row]!;
      if (id < 0) continue;
      const entry = layer * vocabularySize + id;
      for (let device = 0; device < devices; device++) {
        ofLayer.tokenNeeds.add(tables.tokenNeeds[entry * devices + device]!, needs.pairs[row * devices + device]! > 0);
      }
      const predicted = needs.pairs[row * devices + tables.tokenDevice[entry]!]! > 0;
      ofLayer.tokenConfidence.add(tables.tokenConfidence[entry]!, predicted);
    }
    counts.push(ofLayer);
    homesBefore.unshift(needs.bestDevice);
    homesBefore.length = Math.min(homesBefore.length, transitionLookback);
  }
  return counts;
}

/** Reliability over all layers. */
export function tableReliability(counts: LayerCounts[]): TableReliability {
  const over = (table: keyof LayerCounts): Reliability => {
    const sum = new ConfidenceCounts();
    for (const layer of counts) sum.merge(layer[table]);
    return sum.reliability();
  };
  return {
    tokenConfidence: over('tokenConfidence'),
    tokenNeeds: over('tokenNeeds'),
    transitionNeeds: over('transitionNeeds'),
  };
}
