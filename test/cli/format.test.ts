import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatBytes, formatChange, formatMilliseconds, formatNumber, formatShare } from '../../src/cli/format.ts';
import { renderJson } from '../../src/cli/json.ts';
import { median, percentile } from '../../src/cli/statistics.ts';
import { StopText } from '../../src/cli/stop-text.ts';
import { renderTable } from '../../src/cli/table.ts';

describe('formats', () => {
  it('writes bytes, times, shares and changes', () => {
    assert.deepEqual([0, 999, 1024, 10_240, 1_500_000, 2 ** 40].map(formatBytes), [
      '0 B',
      '999 B',
      '1.00 KiB',
      '10.0 KiB',
      '1.43 MiB',
      '1.00 TiB',
    ]);
    assert.deepEqual([0.5, 12.34, 1234, 61_000, Number.NaN].map(formatMilliseconds), [
      '0.50 ms',
      '12.3 ms',
      '1234 ms',
      '61.0 s',
      '-',
    ]);
    assert.deepEqual([formatShare(0.4634), formatShare(Number.NaN)], ['46.3 %', '-']);
    assert.deepEqual(
      [formatChange(31.4, 100), formatChange(150, 100), formatChange(100, 100), formatChange(1, 0)],
      ['-68.6 %', '+50.0 %', '0.0 %', '-'],
    );
    assert.equal(formatNumber(Number.NaN), '-');
  });

  it('aligns tables without trailing spaces', () => {
    const columns = [
      { title: 'name', align: 'left' as const },
      { title: 'n', align: 'right' as const },
      { title: 'note', align: 'left' as const },
    ];
    assert.equal(
      renderTable(columns, [
        ['a', '1', ''],
        ['long name', '100', 'x'],
      ]),
      'name         n  note\na            1\nlong name  100  x\n',
    );
  });

  it('writes NaN as null in JSON', () => {
    assert.equal(renderJson({ a: Number.NaN, b: undefined, c: 1 }), '{\n  "a": null,\n  "c": 1\n}\n');
  });
});

describe('statistics', () => {
  it('takes nearest-rank percentiles and medians of finite values', () => {
    assert.equal(percentile([3, 1, 2, Number.NaN], 0.5), 2);
    assert.equal(percentile([3, 1, 2], 0.99), 3);
    assert.equal(percentile([], 0.5), Number.NaN);
    assert.equal(median([4, 1, 3, 2]), 2.5);
    assert.equal(median([Number.NaN, 7]), 7);
  });
});

describe('stop text', () => {
  /** Letter by letter: the shortest beginning that ends with a stop string, without the longest such string. */
  const cut = (text: string, stops: string[]): string => {
    for (let end = 1; end <= text.length; end++) {
      const found = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
      if (found.length > 0) return text.slice(0, end - Math.max(...found));
    }
    return text;
  };

  it('ends before the stop string that is complete first, however the text is cut', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 30 });
    const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        letters,
        fc.array(stop, { maxLength: 3 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 5 })),
        (text, stops, sizes) => {
          const filter = new StopText(stops);
          let shown = '';
          for (let at = 0; at < text.length;) {
            const size = sizes.next().value;
            shown += filter.push(text.slice(at, at + size));
            at += size;
            assert.ok(cut(text, stops).startsWith(shown));
          }
          return shown + filter.flush() === cut(text, stops);
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('holds back only what may begin a stop string', () => {
    const filter = new StopText(['\n\n']);
    assert.equal(filter.push('one\n'), 'one');
    assert.equal(filter.push('two\n'), '\ntwo');
    assert.equal(filter.push('\nthree'), '');
    assert.equal(filter.flush(), '');
  });
});
