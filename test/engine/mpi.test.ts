/** Sessions over MPI against sessions over threads. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { mpiProblem } from '../../src/comm/mpi-rank-group.ts';
import {
  scheduleNames,
  type Layout,
  type RunReport,
  type SessionOptions,
  type TokenEvent,
  type TransportName,
} from '../../src/engine/api.ts';
import { openSession, openSessions } from '../../src/engine/session.ts';
import { loadTokenizer } from '../../src/model/tokenizer.ts';
import { readPlan, writePlan } from '../../src/plan/plan-file.ts';
import { copyTiny, smoeError, tinyDirectory } from '../model/fixtures.ts';
import { demoDirectory, randomPlan, request, run } from './runs.ts';

const problem = await mpiProblem();
const skip = problem === undefined ? false : `MPI cannot be used here: ${problem.message} (${problem.hint})`;

const planFile = join(demoDirectory, 'plan-4.json');

function demoOptions(transport: TransportName, layout: Layout): SessionOptions {
  return {
    modelDirectory: demoDirectory,
    layout,
    plan: readPlan(planFile),
    planFile,
    transport,
    maximumStepTokens: 128,
    cachePositions: 512,
  };
}

/** What a run may not owe to its transport. */
function essence({ outputSha256, logitsSha256, bytes, messages, outputs }: RunReport): object {
  return { outputSha256, logitsSha256, bytes, messages, tokens: outputs.map(({ tokens }) => tokens) };
}

describe('sessions over MPI', { skip }, () => {
  it('compute the bits, and count the bytes and messages, of sessions over threads, on several threads a rank too', async () => {
    const tokenizer = loadTokenizer(demoDirectory);
    const documents = readFileSync(join(demoDirectory, 'heldout', 'evaluation.jsonl'), 'utf8')
      .split('\n')
      .slice(0, 3);
    const requests = documents.map((line) =>
      request(tokenizer.encode((JSON.parse(line) as { text: string }).text).slice(0, 40), { maxNewTokens: 3 }),
    );
    for (const layout of [
      { dataParallel: 1, tensorParallel: 4 },
      { dataParallel: 2, tensorParallel: 2 },
    ]) {
      const found: object[][] = [];
      for (const transport of ['threads', 'mpi'] as const) {
        const session = await openSession({
          ...demoOptions(transport, layout),
          threadsPerRank: transport === 'mpi' && layout.dataParallel === 2 ? 2 : 1,
        });
        const reports: object[] = [];
        for (const schedule of scheduleNames) {
          const overlap = schedule === 'speculative' ? (['microbatch'] as const) : [];
          for (const exchange of [{}, { compactRows: true }, { oneShotTokens: 8 }]) {
            const options = { requests, schedule, predictor: 'combined', logits: 'all', overlap, ...exchange } as const;
            reports.push(essence(await session.run(run(options))));
          }
        }
        assert.equal(session.hosts.length, 4);
        await session.close();
        found.push(reports);
      }
      const names = scheduleNames.flatMap((schedule) => [
        schedule,
        `${schedule}, compact rows`,
        `${schedule}, one-shot`,
      ]);
      names.forEach((name, i) => assert.deepEqual(found[1]![i], found[0]![i], name));
    }
  });

  it('compute the same under several plans on the same ranks as on ranks of their own', async () => {
    const layout = { dataParallel: 2, tensorParallel: 2 };
    const options = demoOptions('mpi', layout);
    const sources = [{ plan: randomPlan(demoDirectory, 4, 3) }, { plan: options.plan, planFile }];
    const jobs = sources.map((_, i) =>
      run({
        requests: [request([5, 6, 7, 8, 9]), request([10 + i, 11])],
        schedule: i === 0 ? 'dedup' : 'speculative',
        predictor: 'combined',
        logits: 'all',
      }),
    );
    const alone: object[] = [];
    for (const [i, source] of sources.entries()) {
      const session = await openSession({ ...options, ...source, transport: 'threads' });
      alone.push(essence(await session.run(jobs[i]!)));
      await session.close();
    }
    const sessions = await openSessions(options, sources);
    for (const i of [1, 0, 0, 1]) assert.deepEqual(essence(await sessions[i]!.run(jobs[i]!)), alone[i]);
    await Promise.all(sessions.map((session) => session.close()));
  });

  it('hand tokens over as they are made, with the time each step took', async () => {
    const session = await openSession(demoOptions('mpi', { dataParallel: 1, tensorParallel: 2 }));
    const events: TokenEvent[] = [];
    const requests = [request([5, 6, 7], { maxNewTokens: 4 })];
    const report = await session.run(run({ requests, onToken: (event) => events.push(event) }));
    await session.close();
    assert.deepEqual(
      events.map(({ token }) => token),
      report.outputs[0]!.tokens,
    );
    for (const { step } of events) {
      assert.ok(step.communicationMs > 0 && step.computeMs > 0);
      assert.ok(step.communicationMs <= step.milliseconds && step.computeMs <= step.milliseconds);
    }
  });

  it('refuse a host whose plan file or model differs, before loading', async (context) => {
    const modelDirectory = copyTiny(context, 'qwen3_moe');
    const options: SessionOptions = {
      ...demoOptions('mpi', { dataParallel: 1, tensorParallel: 2 }),
      modelDirectory,
      plan: randomPlan(tinyDirectory('qwen3_moe'), 2, 1),
      planFile: join(modelDirectory, 'plan.json'),
    };
    writePlan(options.planFile!, randomPlan(modelDirectory, 2, 2));
    await assert.rejects(
      openSession(options),
      smoeError('RANKS_DISAGREE', 'rank 0 on', 'has plan', 'the host of the run has'),
    );
    writeFileSync(options.planFile!, 'no plan');
    await assert.rejects(openSession(options), smoeError('PLAN_INVALID', 'rank '));
  });
});
