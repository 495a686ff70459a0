import assert from 'node:assert/strict';
import { test } from 'node:test';
import { overlapNames, type OverlapName, type RunReport } from '../../src/engine/api.ts';
import { MeasuredTrace } from '../../src/timeline/measured-trace.ts';
import { stepKinds } from '../../src/timeline/phase-clock.ts';
import { sumOfPhases, waitOfPhases } from '../../src/timeline/phase-times.ts';
import { phaseNames } from '../../src/timeline/phases.ts';
import { randomPlan, request, run, runOnce } from '../engine/runs.ts';
import { tinyDirectory } from '../model/fixtures.ts';
import { assertTraceEventFormat } from './trace-event-format.ts';

const directory = tinyDirectory('qwen3_moe');
const layout = { dataParallel: 1, tensorParallel: 4 };
const requests = [140, 20].map((length) => request(Array.from({ length }, (_, i) => (i * 31) % 320)));

function measured(overlap: readonly OverlapName[]): Promise<RunReport> {
  const options = run({ requests, schedule: 'speculative', overlap, timelineSteps: 3 });
  return runOnce(directory, layout, randomPlan(directory, 4, 5), options, { maximumStepTokens: 256 });
}

test('phases of a rank add up to its steps', async () => {
  const report = await measured([]);
  assert.equal(report.phases.length, 4);
  for (const times of report.phases) {
    const all = stepKinds.reduce((sum, kind) => sum + sumOfPhases(times[kind]), 0);
    assert.ok(all > 0 && all <= report.wallMs + 1);
    for (const kind of stepKinds) assert.ok(waitOfPhases(times[kind]) < sumOfPhases(times[kind]));
    for (const name of ['attention', 'router', 'experts', 'predict', 'slices', 'wait dispatch'] as const)
      assert.ok(times.prefill[name] > 0, name);
  }
});

for (const overlap of [[], overlapNames]) {
  test(`a timeline has every phase once and every byte of its steps, overlap ${overlap.join() || 'none'}`, async () => {
    const report = await measured(overlap);
    const ranks = report.timeline!;
    let sent = 0;
    let received = 0;
    for (const { spans, exchanges } of ranks) {
      for (let i = 0; i < spans.phase.length; i++) {
        assert.ok(spans.end[i]! > spans.start[i]! && spans.phase[i]! < phaseNames.length && spans.step[i]! < 3);
        if (i > 0) assert.ok(spans.start[i]! >= spans.end[i - 1]!, 'one phase at a time');
        const outside = ['other', 'embed', 'logits', 'sample', 'wait control'].includes(phaseNames[spans.phase[i]!]!);
        assert.ok(outside || spans.layer[i]! >= 0, `${phaseNames[spans.phase[i]!]} belongs to a layer`);
        // Only the first step has tokens enough for two halves.
        if (phaseNames[spans.phase[i]!] === 'experts' && spans.step[i] === 0)
          assert.equal(spans.half[i]! > 0, overlap.length > 0);
      }
      for (let i = 0; i < exchanges.purpose.length; i++) {
        assert.ok(exchanges.end[i]! >= exchanges.start[i]!);
        sent += exchanges.sent[i]!;
        received += exchanges.received[i]!;
      }
      assert.deepEqual(new Set(exchanges.half), new Set(overlap.length > 0 ? [0, 1, 2] : [0]));
    }
    assert.equal(sent, received);
    const steps = report.steps.slice(0, 3);
    const bytes = steps.reduce((sum, step) => sum + step.bytes.attention + step.bytes.dispatch + step.bytes.combine, 0);
    const sizes = steps.length * 4 * 2 * 4 * 3 * 8;
    assert.ok(sent >= bytes && sent <= bytes + sizes * 8, 'and little else: sizes');

    const trace = new MeasuredTrace();
    trace.addRun('speculative', ranks);
    const spanCount = ranks.reduce((sum, { spans }) => sum + spans.phase.length, 0);
    const { slices, tracks } = assertTraceEventFormat(trace.toJson());
    assert.ok(slices >= spanCount && tracks >= ranks.length, `${slices} slices on ${tracks} tracks`);
  });
}

test('nothing is recorded unless asked for', async () => {
  const options = run({ requests: [request([1, 2, 3])], schedule: 'dedup' });
  const report = await runOnce(directory, layout, randomPlan(directory, 4, 5), options);
  assert.equal(report.timeline, undefined);
});
