import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { applyCalibration, fitCalibration, monotoneCorrection } from '../../src/plan/calibration.ts';
import { buildPredictionTables } from '../../src/plan/prediction-tables.ts';
import {
  ConfidenceCounts,
  countConfidences,
  tableReliability,
  type TableReliability,
} from '../../src/plan/reliability.ts';
import { reliabilityFigure } from '../../src/plan/reliability-figure.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';
import { contiguousOwners } from '../../src/plan/solvers/contiguous.ts';
import { selectRequests } from '../../src/trace/split.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

const devices = 4;
const layers = 3;
const trace = syntheticTrace({
  layers,
  experts: 16,
  topK: 3,
  vocabularySize: 3000,
  requests: 60,
  tokensPerRequest: 120,
  seed: 12,
});
const owners = Uint16Array.from({ length: layers * 16 }, (_, i) => contiguousOwners(16, devices)[i % 16]!);
const part = (keep: (request: number) => boolean): RoutingTrace =>
  selectRequests(
    trace,
    Uint8Array.from(trace.labels, (_, request) => (keep(request) ? 1 : 0)),
  );
const profile = part((request) => request % 2 === 0);
const evaluation = part((request) => request % 2 === 1);

describe('reliability', () => {
  it('bins predictions and weighs how far they are off', () => {
    const counts = new ConfidenceCounts();
    for (let i = 0; i < 100; i++) counts.add(204, i < 60);
    for (let i = 0; i < 300; i++) counts.add(51, i < 60);
    const { predictions, calibrationError, bins } = counts.reliability();
    assert.equal(predictions, 400);
    assert.ok(Math.abs(calibrationError - 0.05) < 1e-12);
    const filled = bins.filter((bin) => bin.predictions > 0);
    assert.deepEqual(
      filled.map(({ from, frequency }) => [from, frequency]),
      [
        [0.2, 0.2],
        [0.8, 0.6],
      ],
    );
  });
});

describe('calibration', () => {
  it('is monotone and changes little without evidence', () => {
    const prediction = fc.tuple(
      fc.nat(255),
      fc.integer({ min: 1, max: 5000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
    );
    fc.assert(
      fc.property(fc.array(prediction, { maxLength: 30 }), (given) => {
        const counts = new ConfidenceCounts();
        for (const [step, weight, share] of given) {
          counts.given[step]! += weight;
          counts.right[step]! += Math.floor(weight * share);
        }
        const correction = monotoneCorrection(counts);
        for (let step = 1; step < 256; step++) assert.ok(correction[step]! >= correction[step - 1]!);
      }),
    );
    assert.deepEqual(
      [...monotoneCorrection(new ConfidenceCounts())],
      Array.from({ length: 256 }, (_, step) => step),
    );
    const few = new ConfidenceCounts();
    for (let i = 0; i < 5; i++) few.add(200, false);
    assert.ok(Math.abs(monotoneCorrection(few)[200]! - 200) <= 2);
  });

  it('finds a known distortion', () => {
    const random = new SeededRandom(4);
    const counts = new ConfidenceCounts();
    for (let i = 0; i < 400_000; i++) {
      const step = random.below(256);
      counts.add(step, random.unit() < Math.sqrt(step / 255));
    }
    const correction = monotoneCorrection(counts);
    for (const step of [32, 64, 128, 200, 240]) {
      assert.ok(Math.abs(correction[step]! - 255 * Math.sqrt(step / 255)) < 20, `${step}: ${correction[step]}`);
    }
  });

  it('brings tables that copy neighbours blindly closer to what comes true, on requests nobody saw', () => {
    // Neighbours by chance: what they say of an unseen id means nothing.
    const random = new SeededRandom(9);
    const embedding = { values: new Float32Array(3000 * 4).map(() => random.unit() - 0.5), hiddenSize: 4 };
    const best = Array.from({ length: layers }, () => 'token' as const);
    const build = (from: RoutingTrace): ReturnType<typeof buildPredictionTables> =>
      buildPredictionTables(from, owners, devices, best, { embedding });
    const boundary = profile.labels.length * 0.8;
    const fit = selectRequests(
      profile,
      Uint8Array.from(profile.labels, (_, request) => (request < boundary ? 1 : 0)),
    );
    const heldOut = selectRequests(
      profile,
      Uint8Array.from(profile.labels, (_, request) => (request < boundary ? 0 : 1)),
    );
    const calibration = fitCalibration(build(fit), fit, heldOut, owners, devices);
    const tables = build(profile);
    const measure = (): TableReliability => tableReliability(countConfidences(tables, evaluation, owners, devices));
    const raw = measure();
    applyCalibration(tables, profile, calibration);
    const calibrated = measure();
    assert.ok(raw.tokenNeeds.calibrationError > 0.05, String(raw.tokenNeeds.calibrationError));
    assert.ok(calibrated.tokenNeeds.calibrationError < 0.6 * raw.tokenNeeds.calibrationError);
    assert.ok(calibrated.tokenConfidence.calibrationError < 0.6 * raw.tokenConfidence.calibrationError);
    for (let entry = 0; entry < tables.tokenDevice.length; entry++) {
      const needs = tables.tokenNeeds.subarray(entry * devices, (entry + 1) * devices);
      assert.equal(tables.tokenConfidence[entry], Math.max(...needs));
      assert.equal(needs[tables.tokenDevice[entry]!], Math.max(...needs));
    }
    const svg = reliabilityFigure(calibrated, 'the other half');
    assert.match(svg, /Reliability of the prediction tables/);
    assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
  });
});
