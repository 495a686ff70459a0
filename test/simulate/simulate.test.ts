import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SmoeError } from '../../src/errors.ts';
import { ChromeTrace } from '../../src/simulate/chrome-trace.ts';
import { simulate, type SimulationOptions } from '../../src/simulate/simulate.ts';
import { composeSteps, phaseChoices } from '../../src/simulate/steps.ts';
import { parseSweep, sweepReport, sweptClusters } from '../../src/simulate/sweep.ts';
import { sweepFigure } from '../../src/simulate/sweep-figure.ts';
import { smallCluster, smallPlan, smallShape, smallSimulation, smallTrace } from './small.ts';

test('steps: every token once, prompts before decodes, bounds kept, whatever the composition', () => {
  const trace = smallTrace(9, 17);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 12 }),
      fc.constantFrom(...phaseChoices),
      fc.constantFrom(1, 2, 3),
      (stepTokens, decodeBatch, phases, dataParallel) => {
        const placement = Int32Array.from(trace.labels, (_, i) => i % dataParallel);
        const steps = composeSteps(trace, placement, dataParallel, { stepTokens, decodeBatch, phases });
        const stepOf = new Map<number, number>();
        steps.forEach(({ rows, groupTokens, sampled }, step) => {
          assert.equal(
            rows.length,
            groupTokens.reduce((sum, tokens) => sum + tokens, 0),
          );
          assert.ok(groupTokens.every((tokens) => tokens <= stepTokens));
          assert.ok(sampled.every((count, group) => count <= Math.min(decodeBatch, groupTokens[group]!)));
          for (const row of rows) {
            assert.ok(!stepOf.has(row));
            stepOf.set(row, step);
          }
        });
        assert.equal(stepOf.size, trace.length);
        for (let row = 1; row < trace.length; row++) {
          if (trace.request[row] !== trace.request[row - 1]) continue;
          const decodes = phases === 'decode' || (phases === 'recorded' && trace.phase[row] === 1);
          assert.ok(stepOf.get(row)! >= stepOf.get(row - 1)! + (decodes ? 1 : 0));
        }
      },
    ),
    { numRuns: 60 },
  );
});

const refused: [string, Partial<SimulationOptions>, string][] = [
  [
    'more ranks than devices',
    { layout: { dataParallel: 1, tensorParallel: 4 }, clusters: [smallCluster({ nodes: [{ devices: 2 }] })] },
    'CLUSTER_TOO_FEW_DEVICES',
  ],
  [
    'memory that cannot hold the experts',
    { clusters: [smallCluster({ device: { gigaflops: 1, memoryGBps: 1, memoryGB: 1e-5 } })] },
    'CLUSTER_MEMORY',
  ],
  ['a model of another shape', { shape: { ...smallShape, experts: 16 } }, 'SIMULATE_OTHER_MODEL'],
  [
    'a plan for other ranks',
    { layout: { dataParallel: 1, tensorParallel: 1 }, plan: smallPlan(smallTrace(), 3) },
    'PLAN_LAYOUT',
  ],
  ['heads that do not split', { layout: { dataParallel: 1, tensorParallel: 16 } }, 'LAYOUT_UNSUPPORTED'],
  [
    'nothing to replay',
    { composition: { stepTokens: 8, decodeBatch: 8, phases: 'recorded', maximumSteps: 0 } },
    'SIMULATE_NO_STEPS',
  ],
];
for (const [what, change, code] of refused) {
  test(`refused: ${what}`, () => {
    // A layout beyond the plan's devices still folds when the plan has as many.
    const layout = change.layout;
    const plan = code === 'LAYOUT_UNSUPPORTED' ? { plan: smallPlan(smallTrace(), layout!.tensorParallel) } : {};
    assert.throws(
      () => simulate(smallSimulation({ ...plan, ...change })),
      (error) => error instanceof SmoeError && error.code === code,
    );
  });
}

test('token ids unknown: the predictor that needs them says so, others work', () => {
  const trace = smallTrace();
  const plan = smallPlan(trace, 4);
  const unknown = { ...trace, model: { ...trace.model, vocabularySize: 0 }, token: trace.token.map(() => -1) };
  const run = (predictor: SimulationOptions['predictor']): string => {
    const [result] = simulate(smallSimulation({ trace: unknown, plan, schedule: 'speculative', predictor }));
    return result!.homes;
  };
  assert.throws(
    () => run('token'),
    (error) => error instanceof SmoeError && error.code === 'SIMULATE_NO_TOKENS',
  );
  assert.equal(run('transition'), 'predicted');
  assert.equal(run('pregate'), 'approximated');
  assert.equal(run('oracle'), 'oracle');
});

test('notes say which setups cannot gain', () => {
  const codes = (change: Partial<SimulationOptions>): string[] =>
    simulate(smallSimulation(change))[0]!.notes.map(({ code }) => code);
  const trace = smallTrace();
  const oneRank = { layout: { dataParallel: 1, tensorParallel: 1 }, plan: smallPlan(trace, 1), trace };
  assert.deepEqual(codes(oneRank), ['one-rank']);
  assert.ok(codes({ schedule: 'gather-all' }).includes('gathers-everything'));
  assert.ok(codes({ schedule: 'deepspeed-moe' }).includes('padded'));
  assert.ok(
    codes({ schedule: 'speculative', layout: { dataParallel: 4, tensorParallel: 1 } }).includes('no-shuffling'),
  );
  assert.ok(codes({ schedule: 'speculative', predictor: 'pregate' }).includes('approximated'));
  const fast = { gigabitsPerSecond: 1e6 };
  assert.ok(codes({ clusters: [smallCluster({ inside: fast, between: fast })] }).includes('compute-bound'));
  const slow = { gigabitsPerSecond: 1e4, latencyUs: 1e5 };
  assert.ok(codes({ clusters: [smallCluster({ inside: slow, between: slow })] }).includes('latency-bound'));
});

test('the timeline is in the Trace Event Format', () => {
  const chromeTrace = new ChromeTrace(4, 2);
  const onSegment = chromeTrace.addRun('dedup, dealt');
  const [result] = simulate(smallSimulation({ overlap: true, onSegment }));
  assert.ok(result!.steps > 2);
  const { traceEvents, displayTimeUnit } = JSON.parse(chromeTrace.toJson()) as {
    traceEvents: {
      ph: string;
      name: string;
      pid: number;
      tid: number;
      ts?: number;
      dur?: number;
      args: Record<string, unknown>;
    }[];
    displayTimeUnit: string;
  };
  assert.equal(displayTimeUnit, 'ms');
  const threads = new Set<number>();
  const steps = new Set<unknown>();
  const endOf = new Map<number, number>();
  for (const { ph, name, pid, tid, ts, dur, args } of traceEvents) {
    assert.ok(['M', 'X'].includes(ph) && pid === 1 && Number.isInteger(tid) && name !== '');
    if (ph === 'M') {
      if (name === 'thread_name') threads.add(tid);
      continue;
    }
    assert.ok(threads.has(tid) && ts! >= 0 && dur! > 0 && Number.isFinite(ts! + dur!));
    assert.ok(ts! >= (endOf.get(tid) ?? 0) - 1e-6, 'events of one track do not overlap');
    endOf.set(tid, ts! + dur!);
    steps.add(args.step);
  }
  assert.deepEqual([...steps], [0, 1]);
  assert.equal(threads.size, 8);
});

test('a sweep: parsing, and where a run stops paying', () => {
  assert.deepEqual(parseSweep('ep=8,2,4,2'), { axis: 'ep', values: [2, 4, 8] });
  for (const bad of ['ep', 'ep=', 'ep=1.5', 'bandwidth=0', 'bandwidth=fast', 'latency=-1', 'colour=1']) {
    assert.throws(
      () => parseSweep(bad),
      (error) => error instanceof SmoeError && error.code === 'USAGE_BAD_VALUE',
      bad,
    );
  }
  const sweep = parseSweep('bandwidth=0.01,0.1,1,10,100');
  const trace = smallTrace(30, 30);
  const clusters = sweptClusters(smallCluster(), sweep);
  const runs = (['alltoallv', 'dedup', 'speculative'] as const).map((schedule) =>
    simulate(smallSimulation({ trace, schedule, predictor: 'oracle', clusters })),
  );
  const report = sweepReport(sweep, runs, 0);
  assert.deepEqual(report.baseline, { plan: 'dealt', schedule: 'alltoallv' });
  assert.ok(report.series[0]!.points.every((point) => point!.gain === 0));
  const gains = report.series[2]!.points.map((point) => point!.gain);
  assert.ok(gains[0]! > 0.2, 'pays on a slow link');
  assert.ok(gains.at(-1)! < gains[0]!, 'pays less on a fast one');
  const synthetic = sweepReport(
    parseSweep('bandwidth=1,10'),
    [
      [{ totalMs: 100 }, { totalMs: 100 }],
      [{ totalMs: 89 }, { totalMs: 109 }],
    ].map((run) => run.map((result) => ({ ...runs[0]![0]!, ...result }))),
    0,
  );
  assert.equal(synthetic.series[1]!.pays, 'up to');
  // Gain falls from 11 % to -9 %: it is 1 % half way, at the square root of 10.
  assert.ok(Math.abs(synthetic.series[1]!.stopsPayingAt! - Math.sqrt(10)) < 1e-9);
  const svg = sweepFigure(report, 'a <model> & a cluster');
  assert.match(svg, /^<svg /);
  assert.ok(!svg.includes('NaN') && !svg.includes('<model>'));
});

test('the same replay twice gives the same result', () => {
  const options = smallSimulation({ schedule: 'speculative', predictor: 'pregate' });
  assert.deepEqual(simulate(options), simulate(options));
});
