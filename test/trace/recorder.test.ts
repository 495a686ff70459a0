import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { compact, type CompactPass, joinRanks } from '../../src/trace/importers/recorder-batches.ts';
import { RequestLinker } from '../../src/trace/importers/recorder-requests.ts';

const layers = 8;
const topK = 8;
/** Real routing of the shipped model: [positions][layers][k]. */
const routing = readFileSync(fileURLToPath(new URL('../../../models/demo/reference/experts.u8', import.meta.url)));

/** A pass of one rank that computed rows [from, to) of the tokens, whose routing begins at `first`. */
function pass(
  rank: number,
  tokens: number,
  {
    from = 0,
    to = tokens,
    first = 0,
    ids = first,
    mode = 2,
  }: Partial<Record<'from' | 'to' | 'first' | 'ids' | 'mode', number>> = {},
): CompactPass {
  const experts = new Int32Array(layers * tokens * topK).fill(-1);
  for (let row = 0; row < to - from; row++) {
    for (let layer = 0; layer < layers; layer++) {
      for (let i = 0; i < topK; i++)
        experts[(layer * tokens + row) * topK + i] = routing[((first + from + row) * layers + layer) * topK + i]!;
    }
  }
  const inputIds = Int32Array.from({ length: tokens }, (_, token) => ids + token);
  const positions = Int32Array.from({ length: tokens }, (_, token) => token);
  return compact({ rank, pass: 1, mode, inputIds, positions, segments: undefined, columns: topK, experts }, layers);
}

const rowsOf = (first: number, tokens: number): number[] => [
  ...routing.subarray(first * layers * topK, (first + tokens) * layers * topK),
];

describe('recorder dumps', () => {
  it('are joined over slices of ranks, equal or not', () => {
    const slices = [pass(0, 5, { to: 3 }), pass(1, 5, { from: 3 })];
    const { batches } = joinRanks('dump', slices.reverse());
    assert.equal(batches.length, 1);
    assert.deepEqual([...batches[0]!.experts], rowsOf(0, 5));
  });

  it('are taken once where every rank saw every token, and apart for two attention groups', () => {
    const { batches } = joinRanks('dump', [
      pass(0, 4),
      pass(1, 4),
      pass(2, 6, { first: 40 }),
      pass(3, 6, { first: 40 }),
    ]);
    assert.deepEqual(
      batches.map(({ group }) => group),
      [0, 2],
    );
    assert.deepEqual([...batches[1]!.experts], rowsOf(40, 6));
  });

  it('are left out where rows are another group’s', () => {
    const { batches, foreignTokens } = joinRanks('dump', [pass(0, 4), pass(1, 3, { ids: 900 })]);
    assert.deepEqual([batches.length, foreignTokens], [1, 3]);
  });

  it('are refused with ranks missing, or a pass recorded twice', () => {
    assert.throws(() => joinRanks('dump', [pass(1, 5, { from: 3 })]), {
      code: 'TRACE_RANKS_MISSING',
      message: /ranks 1 hold 2 of 5 tokens/,
    });
    assert.throws(() => joinRanks('dump', [pass(0, 5), pass(0, 5)]), {
      code: 'TRACE_BAD_RECORD',
      message: /recorded pass 1 twice/,
    });
  });

  it('give back requests: chunks go on, order tells equal positions apart, the ended drop out', () => {
    const linker = new RequestLinker();
    const add = (mode: number, positions: number[], segments?: number[]): void =>
      linker.add('dump', {
        ...{ group: 0, mode, columns: 1, experts: new Uint16Array(positions.length) },
        inputIds: Int32Array.from(positions),
        positions: Int32Array.from(positions),
        segments: segments === undefined ? undefined : Int32Array.from(segments),
      });
    add(1, [0, 1, 2, 0, 1], [3, 2]);
    add(1, [2, 3], [2]);
    add(1, [0, 1, 2], [3]);
    add(2, [3, 4, 3]);
    add(2, [4, 4]);
    add(4, []);
    add(5, [5, 6]);
    assert.deepEqual(
      linker.requests.map(({ rows }) => rows.map(({ batch, row }) => batch.positions[row])),
      [
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
      ],
    );
    assert.deepEqual(
      linker.requests[1]!.rows.map(({ phase }) => phase),
      [0, 0, 0, 0, 1],
    );
    // Two requests stood at position 4 when one had ended.
    assert.deepEqual([linker.otherTokens, linker.ambiguousTokens], [2, 1]);
    assert.throws(() => add(1, [0, 1], [3]), { code: 'TRACE_BAD_RECORD', message: /sum to 3 for 2 tokens/ });
  });
});
