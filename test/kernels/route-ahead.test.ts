import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as reference from '../../src/kernels/reference.ts';
import { Numbers, Workbench } from './workbench.ts';

const bench = new Workbench();
const shape = fc.record({
  rows: fc.nat(5),
  experts: fc.integer({ min: 1, max: 40 }),
  ranks: fc.integer({ min: 1, max: 6 }),
  seed: fc.integer(),
});

interface Placement {
  owners: Uint16Array;
  ranks: number;
  /** [homes][experts] */
  held: Uint8Array;
  homes: number;
}

function benefitsOf(logits: Float32Array, rows: number, k: number, placement: Placement, scale: number): Uint8Array {
  const { owners, ranks, held, homes } = placement;
  bench.clear();
  const at = bench.place(logits);
  const ownersAt = bench.place(owners);
  const heldAt = bench.reserve(held.length + 4);
  new Uint8Array(bench.memory.buffer, heldAt, held.length).set(held);
  const scratch = bench.reserve((k + 1 + ranks * (homes + 1)) * 4 + 4) & ~3;
  const benefits = bench.reserve(rows * homes + 8);
  const guard = new Uint8Array(bench.memory.buffer, benefits, rows * homes + 1);
  guard[rows * homes] = 77;
  const sides = { owners: ownersAt, ranks, held: heldAt, homes, scale };
  bench.kernels.routeAhead(at, rows, owners.length, k, 1, sides, scratch, benefits);
  assert.equal(guard[rows * homes], 77);
  return guard.slice(0, rows * homes);
}

/** What every rank owns, and nothing else. */
function withoutCopies(owners: Uint16Array, ranks: number): Placement {
  const held = new Uint8Array(ranks * owners.length);
  owners.forEach((owner, expert) => (held[owner * owners.length + expert] = 1));
  return { owners, ranks, held, homes: ranks };
}

test('benefits are those of the reference, bit for bit', () => {
  fc.assert(
    fc.property(shape, fc.nat(39), ({ rows, experts, ranks, seed }, choice) => {
      const numbers = new Numbers(seed);
      const k = 1 + (choice % experts);
      const logits = numbers.floats(rows * experts, 4);
      const placement = withoutCopies(
        Uint16Array.from({ length: experts }, () => numbers.integer(ranks)),
        ranks,
      );
      placement.held.forEach((held, i) => (placement.held[i] = held === 1 || numbers.integer(4) === 0 ? 1 : 0));
      const wanted = new Uint8Array(rows * ranks);
      const { owners, held } = placement;
      reference.routeAhead(logits, rows, k, 1, owners, ranks, held, ranks, 127, wanted);
      assert.deepEqual(benefitsOf(logits, rows, k, placement, 127), wanted);
    }),
    { numRuns: 300 },
  );
});

const clearCut = Float32Array.of(9, -5, 9, -5, -5, -5, -5, -5);

test('clear-cut logits save exactly the ranks that own the chosen experts', () => {
  const placement = withoutCopies(Uint16Array.of(2, 0, 1, 0, 1, 2, 0, 3), 4);
  assert.deepEqual([...benefitsOf(clearCut, 1, 2, placement, 255)], [0, 255, 255, 0]);
});

test('a copy saves the owner, when it covers all that is needed there', () => {
  const owners = Uint16Array.of(2, 0, 1, 0, 1, 2, 0, 3);
  const placement = withoutCopies(owners, 4);
  placement.held[1 * owners.length + 0] = 1;
  assert.deepEqual([...benefitsOf(clearCut, 1, 2, placement, 100)], [0, 200, 100, 0]);
  const both = Float32Array.of(9, -5, 9, -5, -5, 9, -5, -5);
  assert.deepEqual([...benefitsOf(both, 1, 3, placement, 100)], [0, 100, 100, 0], 'expert 5 has no copy on rank 1');
});

test('logits that are no numbers save nothing', () => {
  const placement = withoutCopies(Uint16Array.of(0, 1), 2);
  assert.deepEqual([...benefitsOf(Float32Array.of(Number.NaN, Number.NaN), 1, 1, placement, 255)], [0, 0]);
});
