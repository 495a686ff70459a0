import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { describe, it } from 'node:test';
import type { Highs, InitOptions } from 'highs';
import { layoutOf } from '../../src/plan/device-layout.ts';
import { collectExpertSets, type ExpertSets, loadImbalance, setLoads } from '../../src/plan/objective.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';
import { crossings, minimiseCrossings, topTransitions } from '../../src/plan/solvers/exflow.ts';
import { partitionExperts } from '../../src/plan/solvers/layer-partition.ts';
import { Deadline } from '../../src/plan/solvers/local-search.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

/** The package's types describe its namespace; what Node.js loads is the function itself. */
const loadHighs = createRequire(import.meta.url)('highs') as (options?: InitOptions) => Promise<Highs>;
const highs = await loadHighs();

/** Optimum of a 0/1 program in LP format, proved. */
function optimum(program: string): number {
  const solution = highs.solve(program, { mip_rel_gap: 0, mip_abs_gap: 0.5 });
  assert.equal(solution.Status, 'Optimal');
  return Math.round(solution.ObjectiveValue);
}

const range = (length: number): number[] => Array.from({ length }, (_, i) => i);
const sum = (terms: string[]): string => terms.join(' + ');

/** x_e_d: expert e is on device d; y_s_d: set s has a member on device d. */
function partitionProgram(sets: ExpertSets, devices: number, maximumImbalance: number): string {
  const { experts, topK, count, members, weights } = sets;
  const loads = setLoads(sets);
  const bound = (maximumImbalance * sets.tokens * topK) / devices;
  const constraints = [
    ...range(experts).map((e) => `${sum(range(devices).map((d) => `x_${e}_${d}`))} = 1`),
    ...range(devices).flatMap((d) => [
      `${sum(range(experts).map((e) => `x_${e}_${d}`))} >= ${Math.floor(experts / devices)}`,
      `${sum(range(experts).map((e) => `x_${e}_${d}`))} <= ${Math.ceil(experts / devices)}`,
      `${sum(range(experts).map((e) => `${loads[e]} x_${e}_${d}`))} <= ${bound}`,
    ]),
    ...range(count).flatMap((s) =>
      range(devices).flatMap((d) =>
        Array.from(members.subarray(s * topK, (s + 1) * topK), (e) => `y_${s}_${d} - x_${e}_${d} >= 0`),
      ),
    ),
  ];
  const binaries = range(experts).flatMap((e) => range(devices).map((d) => `x_${e}_${d}`));
  // Devices are alike: the first experts open them in order.
  const fixed = range(Math.min(devices, experts)).flatMap((e) =>
    range(devices)
      .filter((d) => d > e)
      .map((d) => `x_${e}_${d} = 0`),
  );
  return [
    'Minimize',
    `obj: ${sum(range(count).flatMap((s) => range(devices).map((d) => `${weights[s]} y_${s}_${d}`)))}`,
    'Subject To',
    ...constraints.map((line, i) => `c${i}: ${line}`),
    'Bounds',
    ...fixed,
    'Binary',
    binaries.join(' '),
    'End',
  ].join('\n');
}

describe('hypergraph against the proved optimum', () => {
  it('is within 1 % on small layers, and mostly equal', (context) => {
    const shapes = [
      [12, 2, 2],
      [12, 3, 2],
      [10, 3, 2],
      [9, 2, 3],
      [8, 4, 3],
      [12, 4, 3],
    ] as const;
    let equal = 0;
    let instances = 0;
    for (const [experts, topK, devices] of shapes) {
      for (let seed = 1; seed <= 4; seed++) {
        const trace = syntheticTrace({
          layers: 1,
          experts,
          topK,
          vocabularySize: 30,
          requests: 6,
          tokensPerRequest: 60,
          seed,
        });
        const sets = collectExpertSets(trace, 0);
        assert.ok(sets.count <= 300);
        const loads = setLoads(sets);
        const maximumImbalance = 1.15 + 0.05 * seed;
        const started = performance.now();
        const result = partitionExperts({
          sets,
          loads,
          layout: layoutOf(devices, experts),
          loadBound: (maximumImbalance * sets.tokens * topK) / devices,
          random: new SeededRandom(seed),
          deadline: new Deadline(),
        });
        const mid = performance.now();
        const best = optimum(partitionProgram(sets, devices, maximumImbalance)) - sets.tokens;
        context.diagnostic(
          `${experts} ${topK} ${devices} sets ${sets.count} ours ${(mid - started).toFixed(0)} highs ${(performance.now() - mid).toFixed(0)}`,
        );
        assert.ok(loadImbalance(loads, result.owner, devices) <= maximumImbalance + 1e-9);
        assert.ok(
          result.cost >= best && result.cost <= 1.01 * best,
          `${experts}/${topK}/${devices}/${seed}: ${result.cost}, optimum ${best}`,
        );
        equal += result.cost === best ? 1 : 0;
        instances++;
      }
    }
    assert.ok(equal >= 0.9 * instances, `${equal} of ${instances} equal`);
  });
});

describe('exflow against the proved optimum', () => {
  it('finds it on tiny chains', () => {
    for (let seed = 1; seed <= 4; seed++) {
      const [layers, experts, devices] = [3, 6, 2];
      const trace = syntheticTrace({
        layers,
        experts,
        topK: 2,
        vocabularySize: 20,
        requests: 4,
        tokensPerRequest: 50,
        seed,
      });
      const transitions = topTransitions(trace);
      const owner = minimiseCrossings(transitions, layers, experts, devices, new SeededRandom(seed));
      const terms: string[] = [];
      const constraints: string[] = [];
      const binaries = new Set<string>();
      for (let layer = 0; layer < layers; layer++) {
        for (let e = 0; e < experts; e++) {
          range(devices).forEach((d) => binaries.add(`x_${layer}_${e}_${d}`));
          constraints.push(`${sum(range(devices).map((d) => `x_${layer}_${e}_${d}`))} = 1`);
        }
        for (let d = 0; d < devices; d++)
          constraints.push(`${sum(range(experts).map((e) => `x_${layer}_${e}_${d}`))} = ${experts / devices}`);
      }
      for (let layer = 0; layer + 1 < layers; layer++) {
        for (let a = 0; a < experts; a++) {
          for (let b = 0; b < experts; b++) {
            const weight = transitions[(layer * experts + a) * experts + b]!;
            if (weight === 0) continue;
            terms.push(`${weight} z_${layer}_${a}_${b}`);
            for (let d = 0; d < devices; d++)
              constraints.push(`z_${layer}_${a}_${b} - x_${layer}_${a}_${d} + x_${layer + 1}_${b}_${d} >= 0`);
          }
        }
      }
      const program = [
        'Minimize',
        `obj: ${sum(terms)}`,
        'Subject To',
        ...constraints.map((line, i) => `c${i}: ${line}`),
      ];
      const best = optimum([...program, 'Binary', [...binaries].join(' '), 'End'].join('\n'));
      assert.equal(crossings(transitions, owner, experts), best);
    }
  });
});
