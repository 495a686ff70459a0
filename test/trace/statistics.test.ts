import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { splitRequests } from '../../src/trace/split.ts';
import { quantile } from '../../src/trace/predictability.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { traceFigure } from '../../src/trace/statistics-figure.ts';
import { traceStatistics } from '../../src/trace/statistics.ts';
import { syntheticTrace } from './synthetic-trace.ts';

const options = { layers: 2, experts: 16, topK: 4, vocabularySize: 40, requests: 20, tokensPerRequest: 50, seed: 5 };

describe('trace statistics', () => {
  it('count tokens, requests, labels and load', () => {
    const trace = syntheticTrace(options);
    const statistics = traceStatistics(trace);
    assert.equal(statistics.tokens, 1000);
    assert.equal(statistics.requests, 20);
    assert.equal(statistics.decodeTokens, 500);
    assert.equal(
      statistics.labels.reduce((sum, { tokens }) => sum + tokens, 0),
      1000,
    );
    assert.equal(statistics.layers.length, 2);
    for (const layer of statistics.layers) {
      assert.ok(layer.loadMaximumOverMean >= 1);
      assert.equal(layer.unusedExperts, 0);
      assert.ok(Math.abs(layer.load.reduce((sum, share) => sum + share, 0) - 16) < 1e-9);
      assert.ok(layer.shareServingHalf > 0 && layer.shareServingHalf <= 0.5);
    }
  });

  it('see more recall where token ids decide the experts', () => {
    const recall = (structure: number): number =>
      traceStatistics(syntheticTrace({ ...options, structure })).layers[0]!.byToken!.precision;
    assert.ok(recall(20) > 0.6);
    assert.ok(recall(0) < 0.4);
  });

  it('leave out the vocabulary when ids are unknown', () => {
    const trace = syntheticTrace(options);
    trace.token.fill(-1);
    trace.model = { ...trace.model, vocabularySize: 0 };
    const statistics = traceStatistics(trace);
    assert.equal(statistics.vocabulary, undefined);
    assert.equal(statistics.layers[0]!.byToken, undefined);
    assert.ok(statistics.layers[1]!.byTransition[0]! > 0);
  });
});

describe('predictability', () => {
  /** Experts are a function of the token id, and every layer repeats them, shifted. */
  function determined(layers: number): RoutingTrace {
    const trace = syntheticTrace({ ...options, layers, requests: 10 });
    for (let row = 0; row < trace.length; row++) {
      for (let layer = 0; layer < layers; layer++) {
        const ids = [0, 3, 7, 12].map((offset) => (trace.token[row]! + offset + layer) % 16).sort((a, b) => a - b);
        trace.experts.set(ids, (row * layers + layer) * 4);
      }
    }
    return trace;
  }

  it('is complete where the token id decides, but for ids never seen', () => {
    const { layers, vocabulary } = traceStatistics(determined(3));
    for (const { byToken } of layers) {
      assert.equal(byToken!.precision, 1);
      assert.deepEqual(byToken!.quartiles, [1, 1, 1]);
      assert.ok(Math.abs(byToken!.recall - vocabulary!.heldOutTokensSeen) < 1e-12);
      assert.ok(Math.abs(byToken!.f1 - (2 * byToken!.recall) / (1 + byToken!.recall)) < 1e-12);
    }
  });

  it('is complete where the layer before decides, and has a figure for every lookback there are layers for', () => {
    const { layers } = traceStatistics(determined(4));
    layers.forEach(({ byTransition }, layer) => {
      assert.deepEqual(
        byTransition.map((accuracy) => accuracy > 0.95),
        [1, 2, 3].map((lookback) => lookback <= layer),
      );
    });
  });

  it('cannot be measured with one request', () => {
    const [first] = traceStatistics(syntheticTrace({ ...options, requests: 1 })).layers;
    assert.ok(Number.isNaN(first!.byToken!.precision) && Number.isNaN(first!.byToken!.quartiles[0]));
    assert.ok(first!.byTransition.every(Number.isNaN));
  });

  it('interpolates quantiles', () => {
    assert.equal(quantile([1, 2, 3, 5], 0.5), 2.5);
    assert.equal(quantile([4], 0.25), 4);
    assert.ok(Number.isNaN(quantile([], 0.5)));
  });

  it('is drawn, with and without token ids', () => {
    const trace = determined(4);
    const svg = traceFigure(traceStatistics(trace));
    assert.match(svg, /By token id/);
    assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
    trace.token.fill(-1);
    const unknown = traceFigure(traceStatistics({ ...trace, model: { ...trace.model, vocabularySize: 0 } }));
    assert.doesNotMatch(unknown, /By token id|NaN|undefined|Infinity/);
  });
});

describe('splitting requests', () => {
  it('puts every request in exactly one part, evenly per label', () => {
    const trace = syntheticTrace(options);
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true }), (share) => {
        const { first, second } = splitRequests(trace, share);
        assert.equal(first.length + second.length, trace.length);
        assert.equal(first.labels.length, Math.floor(20 * share + 0.5));
        assert.deepEqual([...first.labels, ...second.labels].sort(), [...trace.labels].sort());
        for (const part of [first, second]) {
          if (part.length > 0) assert.equal(part.request.at(-1), part.labels.length - 1);
        }
      }),
    );
  });
});
