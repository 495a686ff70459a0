import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readLayout } from '../../src/cli/shared-args.ts';
import { Flags } from '../../src/cli/flags.ts';
import { parseStops } from '../../src/cli/generate.ts';
import {
  cachePositionsFor,
  greedy,
  parseJsonLines,
  parseParagraphs,
  spreadOverLabels,
  toRequests,
} from '../../src/cli/prompts.ts';
import { partsOf } from '../../src/cli/recording.ts';
import type { GenerationRequest } from '../../src/engine/api.ts';

const shape = { promptTokens: 4, maxNewTokens: 2, sampling: greedy, ignoreEnd: true, stopStrings: [] };
const tokenizer = { encode: (text: string) => Int32Array.from(text, (letter) => letter.charCodeAt(0)) };

function request(tokens: number, maxNewTokens: number): GenerationRequest {
  return { ...shape, maxNewTokens, tokens: new Int32Array(tokens), label: '' };
}

describe('documents', () => {
  it('reads JSON lines by text or prompt', () => {
    const lines = '{"text":"a","domain":"c"}\n\n{"prompt":"b","label":"d"}\n{"text":"e","id":7}\n';
    assert.deepEqual(parseJsonLines('f', lines), [
      { text: 'a', label: 'c' },
      { text: 'b', label: 'd' },
      { text: 'e', label: '' },
    ]);
    assert.throws(() => parseJsonLines('f.jsonl', '{"text":"a"}\n{"body":"b"}'), {
      code: 'TEXT_BAD_LINE',
      message: /f\.jsonl, line 2: neither/,
    });
    assert.throws(() => parseJsonLines('f.jsonl', '{'), { code: 'TEXT_BAD_LINE', message: /line 1/ });
  });

  it('parts plain text at blank lines', () => {
    assert.deepEqual(
      parseParagraphs('one\nstill one\n\n \n two\r\n\r\nthree\n').map(({ text }) => text),
      ['one\nstill one', 'two', 'three'],
    );
  });

  it('spreads a choice over the labels', () => {
    const documents = [...'aaabbc'].map((label, i) => ({ label, text: String(i) }));
    const chosen = (count: number): string =>
      spreadOverLabels(documents, count)
        .map(({ label, text }) => label + text)
        .join(' ');
    assert.equal(chosen(4), 'a0 b3 c5 a1');
    assert.equal(chosen(99), 'a0 b3 c5 a1 b4 a2');
  });

  it('cuts prompts and leaves out empty ones', () => {
    const requests = toRequests(
      [
        { text: 'abcdef', label: 'x' },
        { text: '', label: 'y' },
      ],
      tokenizer,
      shape,
    );
    assert.equal(requests.length, 1);
    assert.deepEqual([...requests[0]!.tokens], [97, 98, 99, 100]);
    assert.equal(requests[0]!.label, 'x');
  });
});

describe('sizes', () => {
  it('reserves whole pages for the largest share of the requests', () => {
    assert.equal(cachePositionsFor([request(15, 1), request(16, 1), request(100, 12)], 1), 16 + 32 + 112);
    assert.equal(cachePositionsFor([request(15, 1), request(16, 1), request(100, 12)], 2), 32 + 112);
  });

  it('parts requests by positions', () => {
    const sizes = (limit: number): number[] =>
      partsOf([request(3, 1), request(3, 1), request(9, 1), request(1, 1)], limit).map((part) => part.length);
    assert.deepEqual(sizes(8), [2, 1, 1]);
    assert.deepEqual(sizes(100), [4]);
  });
});

describe('layout', () => {
  const layout = (values: Record<string, string>) => readLayout(new Flags(values), 4);

  it('takes any two of ranks, dp and tp', () => {
    assert.deepEqual(layout({}), { dataParallel: 1, tensorParallel: 4 });
    assert.deepEqual(layout({ ranks: '8' }), { dataParallel: 1, tensorParallel: 8 });
    assert.deepEqual(layout({ dp: '2' }), { dataParallel: 2, tensorParallel: 2 });
    assert.deepEqual(layout({ dp: '8' }), { dataParallel: 8, tensorParallel: 1 });
    assert.deepEqual(layout({ tp: '2' }), { dataParallel: 1, tensorParallel: 2 });
    assert.deepEqual(layout({ ranks: '8', tp: '2' }), { dataParallel: 4, tensorParallel: 2 });
    assert.deepEqual(layout({ dp: '3', tp: '2' }), { dataParallel: 3, tensorParallel: 2 });
  });

  it('refuses degrees that do not multiply', () => {
    for (const bad of [
      { ranks: '8', dp: '3' },
      { ranks: '8', tp: '3' },
      { ranks: '8', dp: '2', tp: '2' },
      { dp: '3' },
    ]) {
      assert.throws(() => layout(bad), { code: 'USAGE_BAD_VALUE', message: /--ranks/ });
    }
    assert.throws(() => layout({ ranks: '0' }), { code: 'USAGE_BAD_VALUE', message: /--ranks/ });
  });
});

describe('stop strings', () => {
  it('are one text or a JSON array', () => {
    assert.deepEqual(parseStops(undefined), []);
    assert.deepEqual(parseStops('\\n\\n'), ['\n\n']);
    assert.deepEqual(parseStops('["\\n", "END"]'), ['\n', 'END']);
    assert.throws(() => parseStops('["a", ""]'), { code: 'USAGE_BAD_VALUE', message: /--stop/ });
    assert.throws(() => parseStops('[END]'), { code: 'USAGE_BAD_VALUE', message: /--stop/ });
  });
});
