import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { assembleReport, isLossless, logitDifference, type CompareFacts } from '../../src/cli/compare-report.ts';
import type { CompareRuns, ScheduleRuns } from '../../src/cli/compare-runs.ts';
import { renderComparison } from '../../src/cli/compare-text.ts';
import type { RunReport, ScheduleName } from '../../src/engine/api.ts';
import { type PhaseName, phaseNames } from '../../src/timeline/phases.ts';
import { runReport } from './run-report.ts';
import { matchesSnapshot } from './snapshot.ts';

const facts: CompareFacts = {
  model: 'demo',
  layout: { dataParallel: 1, tensorParallel: 4 },
  transport: 'threads',
  network: 'shared memory',
  plan: 'models/demo/plan-4.json',
  repeats: 3,
  overlap: [],
  threadsPerRank: 1,
  predictor: 'combined',
  solvers: { contiguous: 'contiguous', planned: 'hypergraph' },
};

function schedule(
  name: ScheduleName,
  change: Partial<RunReport> = {},
  timedChange: Partial<RunReport> = {},
): ScheduleRuns {
  const timed = [400, 500, 1000].map((wallMs) =>
    runReport({ ...change, wallMs, logits: undefined, logitsRows: [], logitsSha256: '', ...timedChange }),
  );
  return { schedule: name, checked: runReport(change), timed, timeline: undefined };
}

const plannedLogits = {
  logitsSha256: 'planned',
  logits: Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11.5),
};
const planned = {
  ...plannedLogits,
  bytes: { attention: 1000, dispatch: 500, combine: 500, control: 24, total: 2024 },
  localActivationRate: 0.5,
  remoteDevicesPerToken: 1.8,
  loadImbalance: 1.1,
  recall: 0.9,
};

function runs(change: Partial<CompareRuns> = {}): CompareRuns {
  return {
    schedules: [
      schedule('deepspeed-moe', {
        bytes: { attention: 1500, dispatch: 9000, combine: 9000, control: 24, total: 19_524 },
      }),
      schedule('dedup'),
      schedule('speculative', planned),
    ],
    references: { contiguous: runReport(), planned: runReport(plannedLogits) },
    hosts: ['a', 'a', 'a', 'a'],
    overlap: [],
    ...change,
  };
}

describe('comparison', () => {
  it('reports what the runs say', () => {
    const report = assembleReport(facts, runs());
    assert.ok(isLossless(report));
    assert.deepEqual(report.layout, { dp: 1, tp: 4, ep: 4 });
    assert.equal(report.prompts, 2);
    assert.equal(report.maxAbsLogitDifference, 0.5);
    const [, dedup, speculative] = report.schedules;
    assert.equal(dedup!.plan, 'contiguous');
    assert.equal(dedup!.predictor, null);
    assert.equal(speculative!.plan, 'hypergraph');
    assert.equal(speculative!.predictor, 'combined');
    assert.deepEqual(dedup!.ttftMs, { p50: 100, p99: 200 });
    assert.equal(dedup!.tokensPerSecond, 8);
    matchesSnapshot('compare', renderComparison(report));
  });

  it('compares latencies round by round', () => {
    const withLatencies = (name: ScheduleName, latencies: number[], bytes: RunReport['bytes']): ScheduleRuns => {
      const [output] = runReport().outputs;
      const timed = latencies.map((e2eMs) => runReport({ outputs: [{ ...output!, e2eMs }], phases: [ranksTime] }));
      return { schedule: name, checked: runReport({ bytes }), timed, timeline: undefined };
    };
    const zeros = Object.fromEntries(phaseNames.map((phase) => [phase, 0])) as Record<PhaseName, number>;
    const ranksTime = { prefill: { ...zeros, predict: 1, experts: 39 }, decode: { ...zeros, permute: 2, experts: 8 } };
    const report = assembleReport(
      facts,
      runs({
        schedules: [
          withLatencies('dedup', [100, 180, 200], runReport().bytes),
          withLatencies('speculative', [105, 189, 199], planned.bytes),
        ],
      }),
    );
    assert.equal(report.recommendation!.schedule, 'dedup');
    assert.match(report.recommendation!.reason, /predicting and permuting are 6\.0 % of its time/);
    const [dedup, speculative] = report.schedules;
    assert.deepEqual(speculative!.e2eMsByRound, [105, 189, 199]);
    assert.deepEqual([dedup!.relativeLatency, speculative!.relativeLatency], [1, 1.05]);
    assert.match(renderComparison(report), /speculative .* 189 ms +\+5\.0 % /);
  });

  it('recommends nothing, relative to nothing, when there is one schedule', () => {
    const { schedules, recommendation } = assembleReport(facts, runs({ schedules: [schedule('dedup')] }));
    assert.equal(recommendation, null);
    assert.equal(schedules[0]!.relativeLatency, null);
  });

  it('notices logits that differ from the one-rank run', () => {
    const report = assembleReport(
      facts,
      runs({
        references: { contiguous: runReport(), planned: runReport({ ...plannedLogits, logitsSha256: 'other' }) },
      }),
    );
    assert.deepEqual(
      report.schedules.map(({ bitIdentical }) => bitIdentical),
      [true, true, false],
    );
    assert.equal(report.outputsIdentical, true);
    assert.equal(isLossless(report), false);
    assert.match(renderComparison(report), /NO {2}every schedule's logits .*: not speculative\n/);
  });

  it('notices tokens that differ in any run, timed ones included', () => {
    const broken = runs().schedules.with(1, schedule('dedup', {}, { outputSha256: 'other' }));
    const report = assembleReport(facts, runs({ schedules: broken }));
    assert.equal(report.outputsIdentical, false);
    assert.deepEqual(
      report.schedules.map(({ bitIdentical }) => bitIdentical),
      [true, false, true],
    );
    assert.match(renderComparison(report), /NO {2}all schedules gave the same tokens/);
  });

  it('does not take a run without logits for an equal one', () => {
    const none = { logits: undefined, logitsRows: [], logitsSha256: '' };
    const report = assembleReport(facts, {
      schedules: [schedule('dedup', none)],
      references: { contiguous: runReport(none) },
      hosts: ['a', 'a', 'a', 'a'],
      overlap: [],
    });
    assert.equal(report.schedules[0]!.bitIdentical, false);
    assert.equal(report.maxAbsLogitDifference, null);
  });
});

describe('logit difference', () => {
  it('looks only at positions reached by the same tokens', () => {
    const a = runReport();
    const outputs = structuredClone(a.outputs);
    outputs[0]!.tokens = [2, 2];
    // Request 0 parts at its first token, so its second row (values 3..5) does not count; its first does.
    const b = runReport({ outputs, logits: Float32Array.of(0, 1, 2.25, 100, 4, 5, 6, 7, 8, 9, 10, 11) });
    assert.equal(logitDifference(a, b), 0.25);
  });

  it('does not hide a NaN', () => {
    const b = runReport({ logits: runReport().logits!.with(2, Number.NaN) });
    assert.ok(Number.isNaN(logitDifference(runReport(), b)));
  });
});
