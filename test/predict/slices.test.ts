import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BalancedSlices } from '../../src/predict/slices.ts';

/** Largest total benefit, by dynamic programming over how full each rank is. */
function optimum(benefit: Float32Array, tokens: number, ranks: number, sizes: Int32Array): number {
  let states = new Map<string, number>([[Array.from({ length: ranks }, () => 0).join(), 0]]);
  for (let token = 0; token < tokens; token++) {
    const next = new Map<string, number>();
    for (const [key, value] of states) {
      const held = key.split(',').map(Number);
      for (let rank = 0; rank < ranks; rank++) {
        if (held[rank]! >= sizes[rank]!) continue;
        held[rank]!++;
        const total = value + benefit[token * ranks + rank]!;
        const reached = held.join();
        if (!(next.get(reached)! >= total)) next.set(reached, total);
        held[rank]!--;
      }
    }
    states = next;
  }
  return [...states.values()][0]!;
}

/** Benefits in steps the solver resolves exactly, with many ties. */
const instance = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 0, max: 12 })).chain(([ranks, tokens]) =>
  fc.record({
    ranks: fc.constant(ranks),
    tokens: fc.constant(tokens),
    benefit: fc
      .array(fc.integer({ min: -8, max: 64 }), { minLength: tokens * ranks, maxLength: tokens * ranks })
      .map((values) => Float32Array.from(values, (value) => value / 64)),
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
    assert.equal(slices.counts[rank], Math.floor(tokens / ranks) + (rank < tokens % ranks ? 1 : 0));
    for (let i = 0; i < slices.counts[rank]!; i++, at++) {
      const token = slices.order[at]!;
      assert.equal(seen[token], 0);
      seen[token] = 1;
      assert.equal(slices.rankOf[token], rank);
      if (i > 0) assert.ok(token > slices.order[at - 1]!);
    }
  }
}

function total(slices: BalancedSlices, benefit: Float32Array, tokens: number): number {
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
        if (tokens > 0)
          assert.ok(Math.abs(total(slices, benefit, tokens) - optimum(benefit, tokens, ranks, slices.counts)) < 1e-9);
      }),
      { numRuns: 400 },
    );
  });

  it('reach the optimum of dynamic programming on medium instances', () => {
    for (let seed = 1; seed <= 4; seed++) {
      const [tokens, ranks] = [60, 3];
      const benefit = new Float32Array(tokens * ranks).map(
        (_, i) => ((Math.imul(i + seed, 2654435761) >>> 0) % 1024) / 1024,
      );
      const slices = new BalancedSlices(64, ranks);
      slices.solve(benefit, tokens);
      assert.ok(Math.abs(total(slices, benefit, tokens) - optimum(benefit, tokens, ranks, slices.counts)) < 1e-9);
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

  it('break ties towards lower tokens', () => {
    const slices = new BalancedSlices(6, 2);
    slices.solve(new Float32Array(12), 6);
    assert.deepEqual([...slices.rankOf.subarray(0, 6)], [1, 1, 1, 0, 0, 0]);
  });

  it('stay valid beyond 16 ranks, with NaN, and for one rank', () => {
    for (const ranks of [1, 5, 17, 40]) {
      const tokens = 333;
      const benefit = new Float32Array(tokens * ranks).map((_, i) => (i % 97 === 0 ? Number.NaN : Math.sin(i * i)));
      const slices = new BalancedSlices(tokens, ranks);
      slices.solve(benefit, tokens);
      assertValid(slices, tokens);
    }
  });
});
