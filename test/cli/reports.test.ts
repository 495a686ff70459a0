import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { contiguousPlan } from '../../src/plan/contiguous-plan.ts';
import { assembleGenerateReport, renderTokenStatistics, tokenStatistics } from '../../src/cli/generate-report.ts';
import { movedExperts, renderPlanReport, type PlanReport, type SolverReport } from '../../src/cli/plan-report.ts';
import { renderTraceStatistics } from '../../src/cli/trace-show.ts';
import type { ModelConfig } from '../../src/model/config.ts';
import { runReport } from './run-report.ts';
import { matchesSnapshot } from './snapshot.ts';

describe('plan report', () => {
  const figures = { localActivationRate: 0.25, remoteDevicesPerToken: 2.75, loadImbalance: 1.3, recall: 1 };
  const solver = (name: string, remoteDevicesPerToken: number, notes: string[]): SolverReport => ({
    ...figures,
    solver: name,
    remoteDevicesPerToken,
    seconds: 1.5,
    peakMemoryMb: 300,
    movedExperts: name === 'contiguous' ? 0 : 90,
    layers: [figures, { ...figures, remoteDevicesPerToken }],
    reliability: null,
    notes,
  });
  const report: PlanReport = {
    trace: 't.parquet',
    evaluation: '55 held-out requests',
    devices: 4,
    replicasPerDevice: 0,
    profileTokens: 1000,
    evaluationTokens: 4000,
    solvers: [solver('hypergraph', 1.88, ['layer 0: bound relaxed to 1.2']), solver('contiguous', 2.75, [])],
    notes: [],
  };

  it('shows solvers side by side', () => matchesSnapshot('plan', renderPlanReport(report)));

  it('counts experts that leave their contiguous device', () => {
    const config = { layers: 2, experts: 8, topK: 2, vocabularySize: 9 } as ModelConfig;
    const plan = contiguousPlan({ config, fingerprint: 'f' }, 4);
    assert.equal(movedExperts(plan), 0);
    plan.expertOwner[0] = 3;
    plan.expertOwner[15] = 0;
    assert.equal(movedExperts(plan), 2);
  });
});

describe('trace report', () => {
  it('describes a trace', () => {
    const model = { fingerprint: 'abc', layers: 2, experts: 64, topK: 8, vocabularySize: 1000 };
    const layer = {
      loadMaximumOverMean: 2.5,
      unusedExperts: 1,
      load: [],
      shareServingHalf: 0.25,
      byToken: { precision: 0.9, recall: 0.83, f1: 0.86, quartiles: [0.5, 0.625, 1] as [number, number, number] },
      byTransition: [0.5, 0.51, Number.NaN],
    };
    const text = renderTraceStatistics({
      tokens: 100,
      requests: 2,
      decodeTokens: 30,
      labels: [
        { label: 'c', requests: 1, tokens: 60 },
        { label: 'rust', requests: 1, tokens: 40 },
      ],
      model,
      source: 'test',
      layers: [layer, { ...layer, byToken: undefined }],
      vocabulary: { distinctIds: 50, share: 0.05, heldOutTokensSeen: 0.9 },
    });
    matchesSnapshot('trace-show', text);
  });
});

describe('generate report', () => {
  const facts = {
    model: 'demo',
    layout: { dataParallel: 1, tensorParallel: 2 },
    transport: 'threads' as const,
    plan: 'contiguous',
    schedule: 'dedup' as const,
    predictor: 'combined' as const,
    text: 'hello',
    tokens: undefined,
  };

  it('carries text, times and bytes', () => {
    const report = assembleGenerateReport(facts, runReport());
    assert.equal(report.predictor, null);
    assert.deepEqual(report.layout, { dp: 1, tp: 2, ep: 2 });
    assert.equal(report.ttftMs, 100);
    assert.ok(!('tokens' in report));
    assert.equal(assembleGenerateReport({ ...facts, schedule: 'speculative' }, runReport()).predictor, 'combined');
  });

  it('shows compute against communication per token', () => {
    const bytes = { attention: 2000, dispatch: 1000, combine: 1000, control: 96 };
    const step = { phase: 'prefill' as const, tokens: 7, milliseconds: 12, computeMs: 10, communicationMs: 2, bytes };
    const first = tokenStatistics({ request: 0, token: 5, index: 0, finishReason: undefined, step });
    const second = tokenStatistics({
      request: 0,
      token: 6,
      index: 1,
      finishReason: 'end',
      step: { ...step, phase: 'decode', tokens: 1 },
    });
    matchesSnapshot('generate-stats', renderTokenStatistics([first, second]));
  });
});
