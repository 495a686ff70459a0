import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { byRank, checkAgainstPlan, checkPlacement } from '../../src/export/check-slots.ts';
import { contiguousSlots, layOutSlots, redundantExperts, slotsOfLayer } from '../../src/export/expert-slots.ts';
import { planOf } from './plans.ts';

describe('expert slots', () => {
  it('put own experts first, then copies', () => {
    const slots = layOutSlots(planOf([0, 1, 1, 0], { copies: [[1], [3]] }));
    assert.deepEqual(slotsOfLayer(slots, 0), [0, 3, 1, 1, 2, 3]);
    assert.equal(redundantExperts(slots), 2);
    assert.equal(slots.padding, 0);
  });

  it('fill ranks with the experts used most, else with those the plan copies most', () => {
    const plan = planOf([0, 0, 0, 1, 1, 2], { copies: [[], [2], [2]] });
    assert.deepEqual(slotsOfLayer(layOutSlots(plan), 0), [0, 1, 2, 3, 4, 2, 5, 2, 0]);
    const used = layOutSlots(plan, [0, 1, 0, 9, 0, 0]);
    assert.deepEqual(slotsOfLayer(used, 0), [0, 1, 2, 3, 4, 2, 5, 2, 3]);
    assert.equal(used.padding, 1);
  });

  it('hold every plan whole, with equal ranks and no expert twice on one', () => {
    const plans = fc
      .record({ devices: fc.integer({ min: 1, max: 6 }), extra: fc.integer({ min: 0, max: 12 }), seed: fc.nat() })
      .map(({ devices, extra, seed }) => {
        const experts = devices + extra;
        const owners = Array.from({ length: experts }, (_, expert) =>
          expert < devices ? expert : (seed * (expert + 7)) % devices,
        );
        const copies = Array.from({ length: devices }, (_, device) =>
          owners.flatMap((owner, expert) =>
            owner !== device && (seed >> ((expert + device) % 20)) % 3 === 0 ? [expert] : [],
          ),
        );
        return planOf(owners, { layers: 2, copies });
      });
    fc.assert(
      fc.property(plans, (plan) => {
        const slots = layOutSlots(plan);
        const layers = [0, 1].map((layer) => byRank(slotsOfLayer(slots, layer), slots.ranks));
        const placement = { ranks: plan.devices, experts: plan.experts, layers };
        checkPlacement('file', placement, [0, 1]);
        checkAgainstPlan('file', placement, plan);
        checkPlacement('file', { ...placement, layers: [byRank(contiguousSlots(slots), slots.ranks)] }, [0]);
      }),
      { numRuns: 200 },
    );
  });

  const refusals: [string, number[][], RegExp][] = [
    [
      'an expert on no rank',
      [
        [0, 1],
        [2, 1],
      ],
      /layer 5: expert 3 is on no rank/,
    ],
    [
      'an expert twice on a rank',
      [
        [0, 0],
        [1, 2],
      ],
      /layer 5, rank 0: expert 0 is there twice/,
    ],
    ['unequal ranks', [[0, 1, 2], [3]], /layer 5, rank 1: 1 experts, 3 on rank 0/],
    [
      'an expert out of range',
      [
        [0, 1],
        [2, 4],
      ],
      /layer 5, rank 1: expert 4 of 4/,
    ],
    ['another number of ranks', [[0, 1, 2, 3]], /layer 5: 1 ranks, expected 2/],
  ];
  for (const [name, onRanks, message] of refusals) {
    it(`refuse ${name}`, () => {
      assert.throws(() => checkPlacement('file', { ranks: 2, experts: 4, layers: [onRanks] }, [5]), {
        code: 'EXPORT_INVALID',
        message,
      });
    });
  }

  it('refuse a placement that lacks what the plan puts on a rank', () => {
    const plan = planOf([0, 0, 1, 1], { copies: [[2]] });
    const layers = [
      [
        [0, 1, 3],
        [2, 3, 0],
      ],
    ];
    assert.throws(() => checkAgainstPlan('file', { ranks: 2, experts: 4, layers }, plan), {
      code: 'EXPORT_INVALID',
      message: /MoE layer 0: the plan has expert 2 on rank 0, the file has not/,
    });
  });
});
