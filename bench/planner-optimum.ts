/**
 * How far the hypergraph solver is from the proved optimum of random small layers: up to 12 experts, 4 devices and 300 distinct sets.
 *
 *   node dist/bench/planner-optimum.js [--instances 60] [--json FILE]
 *
 * Optima are proved by HiGHS, which takes nearly all of the time: seconds to a minute an instance.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { SeededRandom } from '../src/plan/seeded-random.ts';
import { judge, type SmallLayer, type Verdict } from '../test/plan/optimum-program.ts';
import { machine, median } from './machine.ts';

const { values } = parseArgs({
  options: { instances: { type: 'string', default: '60' }, json: { type: 'string' } },
});
const random = new SeededRandom(20);
const between = (least: number, most: number): number => least + random.below(most - least + 1);
const judged: (SmallLayer & Verdict)[] = [];
for (let i = 0; i < Number(values.instances); i++) {
  const devices = between(2, 4);
  const layer = {
    experts: between(Math.max(6, devices), 12),
    topK: between(2, 4),
    devices,
    tokens: between(60, 300),
    seed: i + 1,
  };
  const verdict = judge(layer);
  judged.push({ ...layer, ...verdict });
  const { experts, topK } = layer;
  console.error(
    `${i + 1}: ${experts} experts, top-${topK}, ${devices} devices, ${verdict.sets} sets: ${verdict.cost} of ${verdict.optimum}, proved in ${(verdict.provingMs / 1000).toFixed(1)} s`,
  );
}
const gap = ({ cost, optimum }: Verdict): number => (optimum === 0 ? (cost === 0 ? 0 : Infinity) : cost / optimum - 1);
const equal = judged.filter(({ cost, optimum }) => cost === optimum).length;
const worst = Math.max(...judged.map(gap));
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ machine: machine(), judged }, undefined, 2)}\n`);
console.log(`# Distance from the optimum

${machine()}. ${judged.length} random layers of 6 to 12 experts, top-2 to top-4, 2 to 4 devices, ${Math.min(...judged.map(({ sets }) => sets))} to ${Math.max(...judged.map(({ sets }) => sets))} distinct sets.

| | result | bar |
|---|---|---|
| equal to the proved optimum | ${equal} of ${judged.length} (${((100 * equal) / judged.length).toFixed(1)} %) | 90 % |
| furthest above it | ${(100 * worst).toFixed(2)} % | 1 % |
| load bound kept | ${judged.filter(({ withinBound }) => withinBound).length} of ${judged.length} | all |

Proving took ${(median(judged.map(({ provingMs }) => provingMs)) / 1000).toFixed(1)} s an instance (median).`);
