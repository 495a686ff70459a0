import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BalancedSlices } from '../../src/predict/slices.ts';

/** Largest total benefit, by dynamic programming over how full each rank is; any T % G ranks may take one token more. */
function optimum(benefit: Uint8Array, tokens: number, ranks: number): number {
  const most = Math.ceil(tokens / ranks);
  let states = new Map<string, number>([[Array.from({ length: ranks }, () => 0).join(), 0]]);
  for (let token = 0; token < tokens; token++) {
    const next = new Map<string, number>();
    for (const [key, value] of states) {
      const held = key.split(',').map(Number);
      for (let rank = 0; rank < ranks; rank++) {
        if (held[rank]! >= most) continue;
        held[rank]!++;
        const total = value + benefit[token * ranks + rank]!;
        const reached = held.join();
        if (!(next.get(reached)! >= total)) next.set(reached, total);
        held[rank]!--;
      }
    }
    states = next;
  }
  const least = Math.floor(tokens / ranks);
  const full = [...states].filter(([key]) => key.split(',').every((held) => Number(held) >= least));
  return Math.max(...full.map(([, value]) => value));
}

/** With many ties. */
const instance = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 0, max: 12 })).chain(([ranks, tokens]) =>
  fc.record({
    ranks: fc.constant(ranks),
    tokens: fc.constant(tokens),
    benefit: fc
      .array(fc.oneof(fc.integer({ min: 0, max: 9 }), fc.nat(255)), {
        minLength: tokens * ranks,
        maxLength: tokens * ranks,
      })
      .map((values) => Uint8Array.from(values)),
  }),
);

function assertValid(slices: BalancedSlices, tokens: number): void {
  const ranks = slices.ranks;
  assert.equal(
    slices.counts.reduce((sum, count) => sum + count, 0),
    tokens,
  );
  let at = 0;
  const seen = new Uint8Array(tokens);
  for (let rank = 0; rank < ranks; rank++) {
    assert.ok(slices.counts[rank]! >= Math.floor(tokens / ranks) && slices.counts[rank]! <= Math.ceil(tokens / ranks));
    for (let i = 0; i < slices.counts[rank]!; i++, at++) {
      const token = slices.order[at]!;
      assert.equal(seen[token], 0);
      seen[token] = 1;
      assert.equal(slices.rankOf[token], rank);
      if (i > 0) assert.ok(token > slices.order[at - 1]!);
    }
  }
}

function total(slices: BalancedSlices, benefit: Uint8Array, tokens: number): number {
  let sum = 0;
  for (let token = 0; token < tokens; token++) sum += benefit[token * slices.ranks + slices.rankOf[token]!]!;
  return sum;
}

describe('balanced slices', () => {
  it('are permutations of the right sizes with the largest total benefit', () => {
    fc.assert(
      fc.property(instance, ({ ranks, tokens, benefit }) => {
        const slices = new BalancedSlices(16, ranks);
        slices.solve(benefit, tokens);
        assertValid(slices, tokens);
        if (tokens > 0) assert.equal(total(slices, benefit, tokens), optimum(benefit, tokens, ranks));
      }),
      { numRuns: 400 },
    );
  });

  it('reach the optimum of dynamic programming on medium instances', () => {
    for (let seed = 1; seed <= 4; seed++) {
      const [tokens, ranks] = [60, 3];
      const benefit = new Uint8Array(tokens * ranks).map((_, i) => Math.imul(i + seed, 2654435761) >>> 24);
      const slices = new BalancedSlices(64, ranks);
      slices.solve(benefit, tokens);
      assert.equal(total(slices, benefit, tokens), optimum(benefit, tokens, ranks));
    }
  });

  it('depend on nothing but their input, however the scratch was used before', () => {
    fc.assert(
      fc.property(instance, instance, (before, now) => {
        const used = new BalancedSlices(16, now.ranks);
        if (before.ranks === now.ranks) used.solve(before.benefit, before.tokens);
        const fresh = new BalancedSlices(16, now.ranks);
        used.solve(now.benefit, now.tokens);
        fresh.solve(now.benefit, now.tokens);
        assert.deepEqual(used.order.slice(0, now.tokens), fresh.order.slice(0, now.tokens));
      }),
    );
  });

  it('deal out tokens that do not care', () => {
    const slices = new BalancedSlices(6, 2);
    slices.solve(new Uint8Array(12), 6);
    assert.deepEqual([...slices.rankOf.subarray(0, 6)], [0, 1, 0, 1, 0, 1]);
  });

  it('give up the lower token at equal loss', () => {
    const slices = new BalancedSlices(4, 2);
    slices.solve(Uint8Array.of(9, 0, 9, 0, 9, 0, 9, 0), 4);
    assert.deepEqual([...slices.rankOf.subarray(0, 4)], [1, 1, 0, 0]);
  });

  it('let a token that is alone choose its rank', () => {
    const slices = new BalancedSlices(4, 4);
    slices.solve(Uint8Array.of(1, 2, 9, 3), 1);
    assert.deepEqual([...slices.counts], [0, 0, 1, 0]);
  });

  it('stay valid beyond 16 ranks and for one rank', () => {
    for (const ranks of [1, 5, 17, 40]) {
      const tokens = 333;
      const benefit = new Uint8Array(tokens * ranks).map((_, i) => 128 + 127 * Math.sin(i * i));
      const slices = new BalancedSlices(tokens, ranks);
      slices.solve(benefit, tokens);
      assertValid(slices, tokens);
    }
  });
});
