/** Replaying the trace of a run, without the model, must send what the run sent: same steps, same homes, same bytes. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { loadCluster } from '../../src/cluster/cluster-file.ts';
import { purposes } from '../../src/comm/communicator.ts';
import { type ScheduleName, scheduleNames } from '../../src/engine/api.ts';
import type { Plan, PredictorName } from '../../src/plan/plan.ts';
import { recordedHomes } from '../../src/simulate/homes.ts';
import { modelShape } from '../../src/simulate/model-shape.ts';
import { recordedRun } from '../../src/simulate/recorded-run.ts';
import { simulate, type SimulationOptions } from '../../src/simulate/simulate.ts';
import { type DemoModel, demoModel, microbatchTokens, openDemo, runDemo, stepTokens, unevenPlan } from './demo-runs.ts';

let model: DemoModel;
let plan: Plan;

before(async () => {
  model = demoModel();
  const session = await openDemo(unevenPlan(model, undefined, 1), { dataParallel: 1, tensorParallel: 1 });
  const { trace } = await runDemo(session, model.requests, 'dedup', 'random');
  await session.close();
  plan = unevenPlan(model, trace, 4);
});

/** The last ones with short steps that go one-shot. */
const cases: [ScheduleName, PredictorName, oneShotTokens?: number][] = [
  ...scheduleNames.slice(0, 3).map((schedule): [ScheduleName, PredictorName] => [schedule, 'random']),
  ['speculative', 'token'],
  ['speculative', 'transition'],
  ['speculative', 'combined'],
  ['speculative', 'random'],
  ['speculative', 'combined', 16],
  ['dedup', 'random', 16],
];

for (const [dataParallel, tensorParallel] of [
  [1, 4],
  [2, 2],
  [4, 1],
] as const) {
  test(`dp ${dataParallel} tp ${tensorParallel}: a replayed trace sends what the run sent`, async (t) => {
    const layout = { dataParallel, tensorParallel };
    const session = await openDemo(plan, layout);
    t.after(() => session.close());
    for (const [schedule, predictor, oneShotTokens = 0] of cases) {
      const overlap = predictor === 'transition' || schedule === 'dedup';
      const report = await runDemo(session, model.requests, schedule, predictor, overlap, oneShotTokens);
      const options: SimulationOptions = {
        ...{ trace: report.trace!, shape: modelShape(model.config), plan, schedule, predictor, layout, overlap },
        ...{ microbatchTokens, oneShotTokens: report.oneShotTokens },
        composition: { stepTokens, decodeBatch: stepTokens, phases: 'recorded' },
        clusters: [loadCluster('ethernet-1g-4')],
      };
      const [result] = simulate(options);
      await t.test(
        `${schedule}, ${predictor}${overlap ? ', overlapping' : ''}${oneShotTokens > 0 ? ', one-shot' : ''}`,
        () => {
          assert.equal(result!.steps, report.steps.length);
          assert.equal(result!.overlappedSteps > 0, overlap);
          for (const purpose of [...purposes, 'total'] as const)
            assert.equal(result!.bytes[purpose], report.bytes[purpose], purpose);
          assert.equal(result!.messages, report.messages);
          for (const figure of ['localActivationRate', 'remoteDevicesPerToken', 'loadImbalance'] as const) {
            assert.equal(result![figure], report[figure], figure);
          }
          const { insideNode, betweenNodes } = result!.bytesByLink;
          assert.equal(insideNode, 0);
          // All but the activity exchange that ends a run with several groups.
          assert.equal(betweenNodes, report.bytes.total - (dataParallel > 1 ? 4 * 4 * 3 : 0));
        },
      );
    }
    await t.test('recorded homes stand in for a predictor that needs the model', async () => {
      const report = await runDemo(session, model.requests, 'speculative', 'pregate');
      const { steps, homes } = recordedRun(report, layout);
      const [result] = simulate({
        ...{
          trace: report.trace!,
          shape: modelShape(model.config),
          plan,
          schedule: 'speculative',
          predictor: 'pregate',
        },
        ...{ layout, overlap: false, clusters: [loadCluster('nvlink-8')] },
        composition: { stepTokens, decodeBatch: stepTokens, phases: 'recorded' },
        recorded: { steps, homes: recordedHomes(homes, model.config.layers, (layer) => layer > 0) },
      });
      assert.equal(result!.homes, 'recorded');
      assert.equal(result!.bytes.total, report.bytes.total);
      assert.equal(result!.bytesByLink.betweenNodes, 0);
    });
  });
}
