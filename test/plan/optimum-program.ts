/**
 * Small layers as 0/1 programs, solved to proved optimality by HiGHS: what the planner is held against (test/plan/optimum.test.ts,
 * bench/planner-optimum.ts).
 */
import { createRequire } from 'node:module';
import type { Highs, InitOptions } from 'highs';
import { layoutOf } from '../../src/plan/device-layout.ts';
import { collectExpertSets, type ExpertSets, setLoads } from '../../src/plan/objective.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';
import { mostBalancedOwners } from '../../src/plan/solvers/balance.ts';
import { partitionExperts, type PartitionResult } from '../../src/plan/solvers/layer-partition.ts';
import { Deadline } from '../../src/plan/solvers/local-search.ts';
import { loadImbalance } from '../../src/plan/objective.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

/** The package's types describe its namespace; what Node.js loads is the function itself. */
const loadHighs = createRequire(import.meta.url)('highs') as (options?: InitOptions) => Promise<Highs>;
const highs = await loadHighs();

/** Optimum of a 0/1 program with whole costs in LP format; throws unless it is proved. */
export function provedOptimum(program: string): number {
  const solution = highs.solve(program, { mip_rel_gap: 0, mip_abs_gap: 0.5 });
  if (solution.Status !== 'Optimal') throw new Error(`HiGHS: ${solution.Status}`);
  return Math.round(solution.ObjectiveValue);
}

export const range = (length: number): number[] => Array.from({ length }, (_, i) => i);
export const sum = (terms: string[]): string => terms.join(' + ');

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

export interface SmallLayer {
  experts: number;
  topK: number;
  devices: number;
  tokens: number;
  seed: number;
}

export interface Verdict {
  sets: number;
  /** Rows over all tokens: what the solver reached, and the proved least. */
  cost: number;
  optimum: number;
  withinBound: boolean;
  provingMs: number;
}

/** Solves a random small layer under a load bound that some placement meets, and proves the optimum. */
export function judge({ experts, topK, devices, tokens, seed }: SmallLayer): Verdict {
  const shape = { layers: 1, experts, topK, vocabularySize: 30, requests: 6, tokensPerRequest: Math.ceil(tokens / 6) };
  const sets = collectExpertSets(syntheticTrace({ ...shape, seed }), 0);
  const loads = setLoads(sets);
  const layout = layoutOf(devices, experts);
  const reachable = loadImbalance(loads, mostBalancedOwners(loads, layout), devices);
  const maximumImbalance = Math.max(1.1, reachable) + 0.02 * (seed % 8);
  const result: PartitionResult = partitionExperts({
    sets,
    loads,
    layout,
    loadBound: (maximumImbalance * sets.tokens * topK) / devices,
    random: new SeededRandom(seed),
    deadline: new Deadline(),
  });
  const started = performance.now();
  const optimum = provedOptimum(partitionProgram(sets, devices, maximumImbalance + 1e-9)) - sets.tokens;
  return {
    sets: sets.count,
    cost: result.cost,
    optimum,
    withinBound: loadImbalance(loads, result.owner, devices) <= maximumImbalance + 1e-9,
    provingMs: performance.now() - started,
  };
}
