import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fitRates, type FittedRates, type MeasuredWork, modelledSeconds } from '../../src/calibrate/device-rates.ts';
import { fitExchange } from '../../src/calibrate/exchange-cost.ts';
import { minimizePositive, squaredLogRatio } from '../../src/calibrate/pattern-search.ts';
import { undisturbed } from '../../src/calibrate/undisturbed.ts';

test('the search finds the least of a valley and repeats itself', () => {
  const objective = ([a, b]: number[]): number => squaredLogRatio(a! * b!, 30) + 4 * squaredLogRatio(a! / b!, 0.2);
  const found = minimizePositive([1, 1], objective);
  assert.ok(Math.abs(found[0]! - Math.sqrt(6)) < 0.02 && Math.abs(found[1]! - Math.sqrt(150)) < 0.1, String(found));
  assert.deepEqual(minimizePositive([1, 1], objective), found);
});

test('rates come back from the times they make', () => {
  const truth: FittedRates = {
    ...{ flopsPerSecond: 55e9, attentionFlopsPerSecond: 6e9, expertFlopsPerSecond: 33e9, memoryBytesPerSecond: 25e9 },
    ...{ layerSeconds: 60e-6, tokenSeconds: 4e-6 },
  };
  const measured: MeasuredWork[] = [1, 8, 64, 512].flatMap((tokens) =>
    [16, 1024].map((context) => {
      const work = [
        { layers: 1, flops: tokens * 1e6, attentionFlops: tokens * context * 1e3, bytes: 2e6 },
        { expertFlops: tokens * 4e6, bytes: Math.min(64, tokens * 8) * 7e4 },
        { tokens },
      ];
      return { name: `${tokens} ${context}`, work, seconds: modelledSeconds({ name: '', work, seconds: 0 }, truth) };
    }),
  );
  const fitted = fitRates(measured);
  for (const piece of measured) {
    assert.ok(Math.abs(modelledSeconds(piece, fitted) / piece.seconds - 1) < 0.08, piece.name);
  }
});

test('latency and speed come back from exchanges', () => {
  const bytes = [24, 12_000, 200_000, 1_500_000];
  const { latencySeconds, bytesPerSecond, samples } = fitExchange(
    bytes,
    bytes.map((size) => 80e-6 + size / 2e9),
  );
  assert.ok(Math.abs(latencySeconds / 80e-6 - 1) < 0.01);
  assert.ok(Math.abs(bytesPerSecond / 2e9 - 1) < 0.01);
  assert.equal(samples.length, 4);
});

test('the lower quartile of times, of one as of many', () => {
  assert.equal(undisturbed([7]), 7);
  assert.equal(undisturbed([9, 1, 5, 3]), 3);
});
