/** What the ranks of real runs counted must be, byte for byte, what follows from their routing. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { purposes } from '../../src/comm/communicator.ts';
import { type Layout, scheduleNames } from '../../src/engine/api.ts';
import type { Plan } from '../../src/plan/plan.ts';
import { Ownership } from '../../src/schedule/ownership.ts';
import { recordedRun } from '../../src/simulate/recorded-run.ts';
import { recordedTraffic } from '../../src/simulate/traffic-totals.ts';
import { type DemoModel, demoModel, openDemo, runDemo, unevenPlan, withReplicas } from './demo-runs.ts';

const layouts: [number, number][] = [
  [1, 2],
  [1, 4],
  [2, 2],
  [4, 1],
];
let model: DemoModel;
const plans: Record<string, Plan> = {};

before(async () => {
  model = demoModel();
  const session = await openDemo(unevenPlan(model, undefined, 1), { dataParallel: 1, tensorParallel: 1 });
  const { trace } = await runDemo(session, model.requests, 'dedup', 'random');
  await session.close();
  plans.uneven = unevenPlan(model, trace, 4);
  plans.replicas = withReplicas(plans.uneven);
});

for (const [dataParallel, tensorParallel] of layouts) {
  for (const planName of ['uneven', 'replicas']) {
    test(`dp ${dataParallel} tp ${tensorParallel}, plan ${planName}: counters equal what routing says`, async (t) => {
      const layout: Layout = { dataParallel, tensorParallel };
      const plan = plans[planName]!;
      const session = await openDemo(plan, layout);
      t.after(() => session.close());
      const cases = scheduleNames.map((schedule) => ({ name: schedule as string, schedule, oneShotTokens: 0 }));
      cases.push({ name: 'speculative, one-shot', schedule: 'speculative', oneShotTokens: 16 });
      for (const { name, schedule, oneShotTokens } of cases) {
        const report = await runDemo(session, model.requests, schedule, 'pregate', false, oneShotTokens);
        const ownership = new Ownership(plan, dataParallel * tensorParallel);
        const rowBytes = model.config.hiddenSize * 4;
        const { steps, all } = recordedTraffic(
          ...([recordedRun(report, layout), schedule, layout, ownership, rowBytes] as const),
          (layer) => (schedule === 'speculative' && layer > 0 ? tensorParallel : 0),
          report.oneShotTokens,
        );
        await t.test(name, () => {
          for (const purpose of purposes) assert.equal(all.bytes[purpose], report.bytes[purpose], `${purpose} bytes`);
          const messages = purposes.reduce((sum, purpose) => sum + all.messages[purpose], 0);
          assert.equal(messages, report.messages, 'messages');
          assert.deepEqual(
            steps.map(({ bytes }) => bytes),
            report.steps.map(({ bytes }) => bytes),
          );
          assert.ok(report.bytes.dispatch > 0);
        });
      }
    });
  }
}
