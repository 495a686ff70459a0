import { asPercent, type Axis } from '../figure/axes.ts';
import { heatPanel } from '../figure/heat-panel.ts';
import { linePanel } from '../figure/line-panel.ts';
import { renderFigure } from '../figure/svg.ts';
import { longestLookback } from './predictability.ts';
import type { TraceStatistics } from './statistics.ts';

const mostColumns = 128;
const share: Axis = { label: 'share of experts predicted right', minimum: 0, maximum: 1, format: asPercent };

/** Expert load, and how far routing follows from token ids and from the layers before, as SVG. */
export function traceFigure(statistics: TraceStatistics): string {
  const { model, layers } = statistics;
  const layerAxis: Axis = { label: 'MoE layer', minimum: 0, maximum: Math.max(1, layers.length - 1) };
  const loads = layers.map(({ load }) =>
    inColumns(
      load.toSorted((a, b) => b - a),
      Math.min(mostColumns, load.length),
    ),
  );
  const panels = [
    heatPanel({
      title: 'Expert load',
      width: 888,
      height: Math.min(420, 120 + 16 * layers.length),
      x: { label: 'experts of the layer, busiest first', minimum: 0, maximum: model.experts },
      yLabel: 'MoE layer',
      values: loads,
      full: 3,
      legend: 'full colour: three times the mean load or more; none: never used',
    }),
  ];
  if (layers.some(({ byToken }) => byToken !== undefined)) {
    const at = (value: (layer: number) => number): [number, number][] =>
      layers.map((_, layer) => [layer, value(layer)]);
    panels.push(
      linePanel({
        title: 'By token id: its k hottest experts',
        width: 436,
        height: 320,
        x: layerAxis,
        y: share,
        series: [
          {
            name: 'median over token ids, quartiles shaded',
            points: at((layer) => layers[layer]!.byToken!.quartiles[1]),
            band: layers.map(({ byToken }) => [byToken!.quartiles[0], byToken!.quartiles[2]]),
          },
          { name: 'F1 over all held-out tokens', points: at((layer) => layers[layer]!.byToken!.f1) },
          { name: 'recall over all held-out tokens', points: at((layer) => layers[layer]!.byToken!.recall) },
        ],
      }),
    );
  }
  panels.push(
    linePanel({
      title: 'By the experts of the layers before',
      width: 436,
      height: 320,
      x: layerAxis,
      y: share,
      series: Array.from({ length: longestLookback }, (_, index) => ({
        name: `${index + 1} layer${index === 0 ? '' : 's'} before`,
        points: layers.map(({ byTransition }, layer): [number, number] => [layer, byTransition[index]!]),
      })),
    }),
  );
  const title = `Routing of ${model.fingerprint}: ${layers.length} MoE layers, ${model.experts} experts, top ${model.topK}`;
  return renderFigure(
    {
      title,
      description: `${statistics.tokens} tokens of ${statistics.source}; fitted on the first half of the requests, tested on the second`,
    },
    panels,
  );
}

/** Means of so many equal parts. */
function inColumns(values: number[], columns: number): number[] {
  return Array.from({ length: columns }, (_, column) => {
    const part = values.slice(
      Math.floor((column * values.length) / columns),
      Math.floor(((column + 1) * values.length) / columns),
    );
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}
