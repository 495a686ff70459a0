import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { recommend } from '../../src/cli/compare-recommendation.ts';
import type { ScheduleName } from '../../src/engine/api.ts';

function candidate(name: ScheduleName, p50: number, total: number): Parameters<typeof recommend>[0][number] {
  const bytes = { attention: 0, dispatch: total, combine: 0, control: 0, total };
  return { name, bytes, e2eMs: { p50, p99: p50 } };
}

describe('recommendation', () => {
  it('is the fastest schedule, with what it gains on the next best', () => {
    const chosen = recommend(
      [candidate('alltoallv', 400, 4000), candidate('dedup', 200, 2000), candidate('speculative', 150, 1500)],
      '4 hosts',
    );
    assert.equal(chosen?.schedule, 'speculative');
    assert.equal(chosen.reason, 'e2e p50 150 ms, -25.0 % against dedup, the next best; bytes -25.0 %');
  });

  it('is another one where speculation does not pay, and says why', () => {
    const chosen = recommend([candidate('dedup', 100, 2000), candidate('speculative', 110, 1500)], 'shared memory');
    assert.equal(chosen?.schedule, 'dedup');
    assert.match(
      chosen.reason,
      /sends less \(bytes -25\.0 %\) but is slower \(e2e p50 \+10\.0 %\): over shared memory/,
    );
  });

  it('is the one that sends less where times are equal', () => {
    const chosen = recommend([candidate('dedup', 100, 2000), candidate('speculative', 102, 1500)], 'x');
    assert.equal(chosen?.schedule, 'speculative');
    assert.equal(chosen.reason, 'e2e p50 102 ms, +2.0 % against dedup, the next best; bytes -25.0 %');
  });

  it('does not credit speculation with bytes it does not save', () => {
    const chosen = recommend([candidate('dedup', 100, 1000), candidate('speculative', 110, 1000)], 'x');
    assert.match(chosen!.reason, /saves no bytes here \(0\.0 %\)/);
  });

  it('is none of a single schedule', () => assert.equal(recommend([candidate('dedup', 100, 1000)], 'x'), null));
});
