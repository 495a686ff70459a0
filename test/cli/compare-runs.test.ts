import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runComparison, type CompareSetup, type OpenSessions } from '../../src/cli/compare-runs.ts';
import { contiguousPlan } from '../../src/plan/contiguous-plan.ts';
import { scheduleNames } from '../../src/engine/api.ts';
import type { ModelConfig } from '../../src/model/config.ts';
import { runReport } from './run-report.ts';

const config = { layers: 1, experts: 4, topK: 2, vocabularySize: 3 } as ModelConfig;
const contiguous = contiguousPlan({ config, fingerprint: 'f' }, 2);
const setup: CompareSetup = {
  modelDirectory: 'model',
  layout: { dataParallel: 1, tensorParallel: 2 },
  plans: { contiguous, planned: { ...contiguous, solver: 'hypergraph' } },
  schedules: [...scheduleNames],
  predictor: 'combined',
  requests: [],
  repeats: 2,
  warmUpMs: 0,
  stepTokens: 8,
  logits: 'sampled',
  overlap: [],
  compactRows: undefined,
  oneShotTokens: undefined,
  threadsPerRank: 3,
  timelineSteps: 0,
  transport: { transport: 'mpi' },
  planFile: 'plan.json',
};

/** Sessions that write down what happens to them; `fails` makes one run throw. */
function recorder(fails?: string): { open: OpenSessions; events: string[] } {
  const events: string[] = [];
  const open: OpenSessions = async (options, plans) => {
    const ranks = options.layout.tensorParallel;
    assert.equal(options.transport, ranks === 1 ? 'threads' : 'mpi');
    assert.equal(options.threadsPerRank, ranks === 1 ? 1 : 3);
    events.push(`open ${plans.map(({ plan }) => plan.solver).join(' and ')} x${ranks}`);
    return plans.map(({ plan, planFile }) => {
      const name = `${plan.solver} x${ranks}`;
      assert.equal(planFile, plan.solver === 'hypergraph' ? 'plan.json' : undefined);
      return {
        options: { ...options, plan },
        hosts: Array.from({ length: ranks }, () => 'a'),
        defaultOverlap: ['prepare'],
        run: async ({ schedule, logits }) => {
          const event = `${name}: ${schedule} ${logits}`;
          events.push(event);
          if (event === fails) throw new Error('rank died');
          return runReport();
        },
        close: async () => void events.push(`close ${name}`),
      };
    });
  };
  return { open, events };
}

const signal = new AbortController().signal;

describe('comparison runs', () => {
  it('are: one rank per plan, then on ranks that all plans share a checked run per schedule, timed rounds taking turns', async () => {
    const { open, events } = recorder();
    const runs = await runComparison(setup, open, () => {}, signal);
    assert.deepEqual(events, [
      'open contiguous x1',
      'contiguous x1: dedup sampled',
      'close contiguous x1',
      'open hypergraph x1',
      'hypergraph x1: dedup sampled',
      'close hypergraph x1',
      'open contiguous and hypergraph x2',
      'contiguous x2: deepspeed-moe sampled',
      'contiguous x2: alltoallv sampled',
      'contiguous x2: dedup sampled',
      'hypergraph x2: speculative sampled',
      'contiguous x2: deepspeed-moe none',
      'contiguous x2: alltoallv none',
      'contiguous x2: dedup none',
      'hypergraph x2: speculative none',
      'contiguous x2: alltoallv none',
      'contiguous x2: dedup none',
      'hypergraph x2: speculative none',
      'contiguous x2: deepspeed-moe none',
      'close contiguous x2',
      'close hypergraph x2',
    ]);
    assert.deepEqual(
      runs.schedules.map(({ schedule, timed }) => [schedule, timed.length]),
      scheduleNames.map((name) => [name, 2]),
    );
  });

  it('open no session for a plan that no schedule uses', async () => {
    const { open, events } = recorder();
    const runs = await runComparison({ ...setup, schedules: ['dedup'] }, open, () => {}, signal);
    assert.ok(events.every((event) => !event.includes('hypergraph')));
    assert.equal(runs.references.planned, undefined);
  });

  it('close every session when a run fails', async () => {
    for (const fails of ['contiguous x1: dedup sampled', 'hypergraph x2: speculative none']) {
      const { open, events } = recorder(fails);
      await assert.rejects(
        runComparison(setup, open, () => {}, signal),
        /rank died/,
      );
      const plansIn = (verb: string): string[] =>
        events
          .filter((event) => event.startsWith(verb))
          .flatMap((event) => event.match(/contiguous|hypergraph/g)!)
          .sort();
      assert.deepEqual(plansIn('close'), plansIn('open'));
    }
  });
});
