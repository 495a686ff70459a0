import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as reference from '../../src/kernels/reference.ts';
import { Numbers, Workbench } from './workbench.ts';

const bench = new Workbench();
const shape = fc.record({
  rows: fc.nat(5),
  experts: fc.integer({ min: 1, max: 40 }),
  devices: fc.integer({ min: 1, max: 9 }),
  seed: fc.integer(),
});

function needsOf(logits: Float32Array, rows: number, k: number, owners: Uint16Array, devices: number): Uint8Array {
  bench.clear();
  const at = bench.place(logits);
  const ownersAt = bench.place(owners);
  const scratch = bench.reserve((k + 1 + devices) * 4);
  const needs = bench.reserve(rows * devices + 4);
  const guard = new Uint8Array(bench.memory.buffer, needs, rows * devices + 1);
  guard[rows * devices] = 77;
  bench.kernels.routerNeeds(at, rows, owners.length, k, 1, ownersAt, devices, scratch, needs);
  assert.equal(guard[rows * devices], 77);
  return guard.slice(0, rows * devices);
}

test('needs are those of the reference, bit for bit', () => {
  fc.assert(
    fc.property(shape, fc.nat(39), ({ rows, experts, devices, seed }, choice) => {
      const numbers = new Numbers(seed);
      const k = 1 + (choice % experts);
      const logits = numbers.floats(rows * experts, 4);
      const owners = Uint16Array.from({ length: experts }, () => numbers.integer(devices));
      const wanted = new Uint8Array(rows * devices);
      reference.routerNeeds(logits, rows, experts, k, 1, owners, devices, wanted);
      assert.deepEqual(needsOf(logits, rows, k, owners, devices), wanted);
    }),
    { numRuns: 300 },
  );
});

test('clear-cut logits name exactly the devices of the chosen experts', () => {
  const logits = Float32Array.of(9, -5, 9, -5, -5, -5, -5, -5);
  const owners = Uint16Array.of(2, 0, 1, 0, 1, 2, 0, 3);
  assert.deepEqual([...needsOf(logits, 1, 2, owners, 4)], [0, 255, 255, 0]);
});

test('logits that are no numbers need nothing', () => {
  const owners = Uint16Array.of(0, 1);
  assert.deepEqual([...needsOf(Float32Array.of(Number.NaN, Number.NaN), 1, 1, owners, 2)], [0, 0]);
});
