import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { splitRequests } from '../../src/trace/split.ts';
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
    }
  });

  it('see more recall where token ids decide the experts', () => {
    const recall = (structure: number): number =>
      traceStatistics(syntheticTrace({ ...options, structure })).layers[0]!.topExpertsRecall;
    assert.ok(recall(20) > 0.6);
    assert.ok(recall(0) < 0.4);
  });

  it('leave out the vocabulary when ids are unknown', () => {
    const trace = syntheticTrace(options);
    trace.token.fill(-1);
    trace.model = { ...trace.model, vocabularySize: 0 };
    const statistics = traceStatistics(trace);
    assert.equal(statistics.vocabulary, undefined);
    assert.ok(Number.isNaN(statistics.layers[0]!.topExpertsRecall));
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
