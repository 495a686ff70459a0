import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ticks } from '../../src/figure/axes.ts';
import { barPanel } from '../../src/figure/bar-panel.ts';
import { heatPanel } from '../../src/figure/heat-panel.ts';
import { linePanel } from '../../src/figure/line-panel.ts';
import { element, pathThrough, renderFigure } from '../../src/figure/svg.ts';

const axis = { label: 'x', minimum: 0, maximum: 1 };

describe('figures', () => {
  it('put round ticks within the axis', () => {
    assert.deepEqual(ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
    assert.deepEqual(ticks(0, 7, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.deepEqual(ticks(3, 3, 5), [3]);
    fc.assert(
      fc.property(fc.integer({ min: -1000, max: 1000 }), fc.integer({ min: 1, max: 100_000 }), (minimum, span) => {
        const found = ticks(minimum, minimum + span, 6);
        assert.ok(found.length >= 2 && found.length <= 13, String(found));
        assert.ok(found.every((value) => value >= minimum - 1e-6 && value <= minimum + span + 1e-6));
      }),
    );
  });

  it('interrupt lines where a value is missing', () => {
    assert.equal(
      pathThrough([
        [0, 1],
        [1, 2],
        [2, Number.NaN],
        [3, 4.126],
      ]),
      'M0 1L1 2M3 4.13',
    );
  });

  it('escape text', () => {
    assert.equal(element('g', { title: 'a"b' }), '<g title="a&#34;b"/>');
    assert.match(renderFigure({ title: '<&>', description: 'd' }, []), /&#60;&#38;&#62;/);
  });

  it('are well formed, adapt to dark pages and hold no value that is not finite', () => {
    const size = { width: 400, height: 300, title: 'panel' };
    const svg = renderFigure({ title: 't', description: 'd' }, [
      linePanel({
        ...size,
        x: axis,
        y: axis,
        guide: [
          [0, 0],
          [1, 1],
        ],
        series: [
          {
            name: 'a',
            points: [
              [0, 0.5],
              [1, Number.NaN],
            ],
            band: [
              [0.4, 0.6],
              [Number.NaN, Number.NaN],
            ],
            marks: true,
          },
          { name: 'b', points: [] },
        ],
      }),
      barPanel({
        ...size,
        x: axis,
        y: axis,
        bars: [
          { from: 0, to: 0.5, value: 1 },
          { from: 0.5, to: 1, value: Number.NaN },
        ],
      }),
      heatPanel({
        ...size,
        x: axis,
        yLabel: 'row',
        values: [
          [0, 1, Number.NaN],
          [2, 3, 4],
        ],
        full: 2,
        legend: 'l',
      }),
    ]);
    assert.match(svg, /prefers-color-scheme: dark/);
    assert.doesNotMatch(svg, /NaN|Infinity|undefined/);
    const open: string[] = [];
    for (const [, close, name, selfClosing] of svg.matchAll(/<(\/?)([a-z]+)(?:\s[^<>]*?)?(\/?)>/g)) {
      if (close === '/') assert.equal(open.pop(), name);
      else if (selfClosing !== '/') open.push(name!);
    }
    assert.deepEqual(open, []);
  });
});
