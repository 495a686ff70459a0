/** What every transport must do, run with real ranks. */
import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { purposes } from '../../src/comm/communicator.ts';
import type { LaunchOptions, RankGroup } from '../../src/comm/rank-group.ts';
import type { ConformanceJob } from './conformance-rank.ts';
import { collectives, type Program, type Step } from './program.ts';

export type ConformanceGroup = RankGroup<ConformanceJob, unknown>;
export type Launch = (options: LaunchOptions<string>) => Promise<ConformanceGroup>;

export const conformanceEntry: URL = siblingModule('conformance-rank');

function siblingModule(name: string): URL {
  return new URL(`./${name}${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url);
}

/** Runs one scenario on a fresh group and returns the error it must end with. */
export async function failureOf(launch: Launch, size: number, scenario: string): Promise<Error & { code?: string }> {
  const group = await launch({ size, entry: conformanceEntry });
  try {
    await group.run({ scenario });
  } catch (error) {
    assert.ok(error instanceof Error);
    return error;
  } finally {
    await group.close();
  }
  assert.fail(`${scenario} did not fail`);
}

function programs(size: number): fc.Arbitrary<Program> {
  const length = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 900, max: 5000 }));
  const step: fc.Arbitrary<Step> = fc.record({
    collective: fc.constantFrom(...collectives),
    purpose: fc.constantFrom(...purposes),
    blocking: fc.boolean(),
    inPlace: fc.boolean(),
    root: fc.nat({ max: 63 }),
    lengths: fc.array(length, { minLength: size * size, maxLength: size * size }),
  });
  const steps = 16;
  return fc.record({
    steps: fc.array(step, { minLength: 1, maxLength: steps }),
    waitOrder: fc.array(fc.integer({ min: -20, max: 80 }), { minLength: steps, maxLength: steps }),
  });
}

export function runConformance(name: string, launch: Launch): void {
  describe(`${name}: collectives`, () => {
    const sizes = new Set([1, 2, 3, 4, 8, Math.min(2 * availableParallelism(), 16)]);
    for (const size of sizes) {
      describe(`${size} ranks`, () => {
        let group: ConformanceGroup;
        const events: string[] = [];
        before(async () => {
          group = await launch({
            size,
            entry: conformanceEntry,
            onEvent: (event) => events.push(event),
          });
        });
        after(() => group.close());

        it('gives every rank the right bytes, sums and counters for any sequence', async () => {
          // A failure closes the group, so there is nothing to shrink with.
          await fc.assert(
            fc.asyncProperty(programs(size), async (program) => {
              await group.run({ scenario: 'program', program });
            }),
            { numRuns: 25, endOnFailure: true },
          );
        });
        it('interleaves sub-communicators', async () => {
          await group.run({ scenario: 'grid' });
        });
        it('keeps many requests in flight', async () => {
          await group.run({ scenario: 'manyInFlight' });
        });
        it('keeps step over many small collectives', async () => {
          await group.run({ scenario: 'manyInTurn' });
        });
        it('moves large payloads', async () => {
          await group.run({ scenario: 'large' });
        });
        it('exchanges what lies in the memory in use, of several', async () => {
          await group.run({ scenario: 'memories' });
        });
        it('refuses wrong arguments without starting anything', async () => {
          const reports = await group.run({ scenario: 'arguments' });
          assert.deepEqual(
            reports,
            Array.from({ length: size }, (_, rank) => rank),
          );
        });
        it('delivers events before the report', async () => {
          events.length = 0;
          await group.run({ scenario: 'events' });
          for (let rank = 0; rank < size; rank++) {
            const own = events.filter((event) => event.startsWith(`${rank}:`));
            assert.deepEqual(own, [`${rank}:0`, `${rank}:1`, `${rank}:2`]);
          }
        });
        it('counts the time blocked', async () => {
          const waits = (await group.run({ scenario: 'waitMs' })) as number[];
          assert.ok(waits.slice(1).every((wait) => wait < 2000));
          if (size === 1) assert.equal(waits[0], 0);
          else assert.ok(Math.max(...waits.slice(1)) > 10, `waited ${waits.join(', ')} ms`);
        });
      });
    }
  });

  describe(`${name}: failures`, () => {
    for (const size of [2, 4]) {
      it(`aborts ${size} ranks`, async () => {
        assert.equal((await failureOf(launch, size, 'abort')).code, 'COMM_ABORTED');
        assert.equal((await failureOf(launch, size, 'abortFromElsewhere')).code, 'COMM_ABORTED');
      });
    }
    it('reports the rank that throws, not those it leaves waiting', async () => {
      const error = await failureOf(launch, 4, 'throwing');
      assert.equal(error.code, 'TEST_THROWN');
      assert.match(error.message, /^rank 1: thrown on purpose$/);
    });
    it('reports a rank that dies', async () => {
      const error = await failureOf(launch, 4, 'dying');
      assert.equal(error.code, 'RANK_DIED');
      assert.match(error.message, /rank 1 .*7/);
    });

    const mismatches: [string, RegExp][] = [
      ['otherOperation', /rank \d is at (barrier|all-reduce) while rank \d is at (barrier|all-reduce)/],
      ['otherLength', /all-reduce: rank \d gives 2000[04] bytes, rank \d 2000[04]/],
      ['otherRoot', /broadcast from rank [01] while rank \d is at broadcast from rank [01]/],
      ['otherCounts', /all-to-all: rank 0 sends 8 bytes to rank 1, which expects 12/],
      ['otherLimit', /all-to-all: rank 0 sends 5000 bytes to rank 1, which expects at most 4999/],
      ['otherKnowledge', /all-to-all: rank 1 knows what it gets, rank \d only limits/],
      ['otherShards', /reduce-scatter: the shard of rank 0 has [45] floats on rank \d, [45] on rank \d/],
      ['leavingEarly', /rank \d is at (barrier|end of job) while rank \d is at (barrier|end of job)/],
    ];
    for (const [scenario, message] of mismatches) {
      it(`detects ranks that disagree: ${scenario}`, async () => {
        const error = await failureOf(launch, 3, scenario);
        assert.equal(error.code, 'COMM_MISMATCH', error.message);
        assert.match(error.message, message);
      });
    }
  });
}
