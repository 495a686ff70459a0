import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SeededRandom } from '../../src/plan/seeded-random.ts';
import { crossings, minimiseCrossings, topTransitions } from '../../src/plan/solvers/exflow.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';
import { judge, provedOptimum, range, sum } from './optimum-program.ts';

// A few quick instances; bench/planner-optimum.ts has many, up to 12 experts, 4 devices and 300 sets.
describe('hypergraph against the proved optimum', () => {
  it('is within 1 % on small layers, and mostly equal', () => {
    const shapes = [
      [12, 2, 2],
      [9, 3, 2],
      [8, 2, 3],
      [7, 3, 3],
      [6, 2, 4],
    ] as const;
    let equal = 0;
    let instances = 0;
    for (const [experts, topK, devices] of shapes) {
      for (let seed = 1; seed <= 2; seed++) {
        const { cost, optimum, withinBound } = judge({ experts, topK, devices, tokens: 72, seed });
        assert.ok(withinBound);
        assert.ok(
          cost >= optimum && cost <= 1.01 * optimum,
          `${experts}/${topK}/${devices}/${seed}: ${cost}, ${optimum}`,
        );
        equal += cost === optimum ? 1 : 0;
        instances++;
      }
    }
    assert.ok(equal >= 0.9 * instances, `${equal} of ${instances} equal`);
  });
});

describe('exflow against the proved optimum', () => {
  it('finds it on tiny chains', () => {
    for (let seed = 1; seed <= 2; seed++) {
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
      const best = provedOptimum([...program, 'Binary', [...binaries].join(' '), 'End'].join('\n'));
      assert.equal(crossings(transitions, owner, experts), best);
    }
  });
});
