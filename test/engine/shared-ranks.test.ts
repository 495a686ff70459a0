/** Sessions under several plans on the same ranks. */
import assert from 'node:assert/strict';
import { before, describe, it, type TestContext } from 'node:test';
import { scheduleNames, type Layout, type RunReport, type Session } from '../../src/engine/api.ts';
import { openSessions } from '../../src/engine/session.ts';
import type { Plan } from '../../src/plan/plan.ts';
import { smoeError, tinyDirectory } from '../model/fixtures.ts';
import { layouts, randomPlan, request, run, withSession, withTables } from './runs.ts';

const directory = tinyDirectory('qwen3_moe');
const requests = [request([1, 2, 3, 4, 5, 6, 7]), request([8, 9]), request([10, 11, 12])];
const bare = [randomPlan(directory, 4, 1), randomPlan(directory, 4, 2, 1)];
const twoRanks: Layout = { dataParallel: 1, tensorParallel: 2 };

async function open(context: TestContext, layout: Layout, plans: Plan[], threadsPerRank = 1): Promise<Session[]> {
  const sessions = await openSessions(
    {
      ...{ modelDirectory: directory, layout, transport: 'threads', threadsPerRank },
      ...{ maximumStepTokens: 16, cachePositions: 64 },
    },
    plans.map((plan) => ({ plan })),
  );
  context.after(() => Promise.all(sessions.map((session) => session.close())));
  return sessions;
}

/** What a run may not owe to what else its ranks hold. */
function essence(report: RunReport): object {
  const { outputSha256, logitsSha256, bytes, messages, localActivationRate, loadImbalance } = report;
  return { outputSha256, logitsSha256, bytes, messages, localActivationRate, loadImbalance };
}

describe('sessions on the same ranks', () => {
  let plans: Plan[];
  before(async () => {
    plans = await Promise.all(bare.map((plan) => withTables(directory, plan, requests)));
  });
  for (const layout of layouts) {
    const name = `dp ${layout.dataParallel}, tp ${layout.tensorParallel}`;
    it(`give the bits and counters of ranks of their own, in any order: ${name}`, async (context) => {
      const jobs = scheduleNames.map((schedule) => run({ requests, schedule, predictor: 'combined', logits: 'all' }));
      const alone: object[][] = [];
      for (const plan of plans) {
        const reports: object[] = [];
        await withSession(
          directory,
          layout,
          plan,
          async (session) => {
            for (const job of jobs) reports.push(essence(await session.run(job)));
          },
          { maximumStepTokens: 16, cachePositions: 64 },
        );
        alone.push(reports);
      }
      const sessions = await open(context, layout, plans, layout.dataParallel === 2 ? 2 : 1);
      for (const [i, job] of jobs.entries()) {
        for (const which of [1, 0, 0, 1]) {
          assert.deepEqual(
            essence(await sessions[which]!.run(job)),
            alone[which]![i],
            `plan ${which}, ${job.schedule}`,
          );
        }
      }
    });
  }

  it('end with the last of them', async (context) => {
    const [first, second] = await open(context, twoRanks, bare);
    await first!.close();
    await first!.close();
    await assert.rejects(first!.run(run({ requests })), { code: 'RANK_GROUP_CLOSED' });
    assert.equal((await second!.run(run({ requests }))).outputs.length, requests.length);
    await second!.close();
    await assert.rejects(second!.run(run({ requests })), { code: 'RANK_GROUP_CLOSED' });
  });

  it('run one at a time, and all end when one fails', async (context) => {
    const [first, second] = await open(context, twoRanks, bare);
    const running = first!.run(run({ requests }));
    await assert.rejects(second!.run(run({ requests })), { code: 'RANK_GROUP_BUSY' });
    await running;
    const predicting = run({ requests, schedule: 'speculative', predictor: 'token' });
    await assert.rejects(first!.run(predicting), smoeError('PLAN_NO_TABLES'));
    await assert.rejects(second!.run(run({ requests })), smoeError('PLAN_NO_TABLES'));
  });

  it('refuse a plan that does not fit, whichever it is', async (context) => {
    const unfit = [bare[0]!, randomPlan(tinyDirectory('olmoe'), 4, 1)];
    await assert.rejects(open(context, twoRanks, unfit), smoeError('PLAN_OTHER_MODEL'));
  });
});
