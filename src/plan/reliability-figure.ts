import { asPercent, type Axis } from '../figure/axes.ts';
import { barPanel } from '../figure/bar-panel.ts';
import { linePanel } from '../figure/line-panel.ts';
import { renderFigure } from '../figure/svg.ts';
import type { Reliability, TableReliability } from './reliability.ts';

const names: Record<keyof TableReliability, string> = {
  tokenConfidence: 'device of a token id',
  tokenNeeds: 'every device, by token id',
  transitionNeeds: 'every device, by transition',
};
/** A point of fewer predictions than this share says nothing. */
const fewestShare = 0.0005;

/** Reliability diagram of a plan's tables, with how often each confidence was given, as SVG. */
export function reliabilityFigure(reliability: TableReliability, source: string): string {
  const tables = Object.keys(names) as (keyof TableReliability)[];
  const confidence: Axis = { label: 'confidence', minimum: 0, maximum: 1, format: asPercent };
  const lines = linePanel({
    title: 'How often a prediction came true',
    width: 436,
    height: 420,
    x: confidence,
    y: { label: 'came true', minimum: 0, maximum: 1, format: asPercent },
    guide: [
      [0, 0],
      [1, 1],
    ],
    series: tables.map((table) => ({
      name: `${names[table]} (off by ${(100 * reliability[table].calibrationError).toFixed(1)} points)`,
      points: pointsOf(reliability[table]),
      marks: true,
    })),
  });
  const given = tables.map((table) => {
    const { bins, predictions } = reliability[table];
    const bars = bins.map((bin) => ({ from: bin.from, to: bin.to, value: bin.predictions / predictions }));
    const maximum = Math.max(...bars.map(({ value }) => value).filter(Number.isFinite), 0.1);
    const y: Axis = { label: 'predictions', minimum: 0, maximum, format: asPercent };
    return barPanel({ title: `Given: ${names[table]}`, width: 436, height: 200, x: confidence, y, bars });
  });
  return renderFigure(
    {
      title: 'Reliability of the prediction tables',
      description: `Confidence against the share that came true, on ${source}; on the dashed line they are equal`,
    },
    [lines, ...given],
  );
}

function pointsOf({ bins, predictions }: Reliability): [number, number][] {
  return bins
    .filter((bin) => bin.predictions >= Math.max(1, fewestShare * predictions))
    .map(({ confidence, frequency }) => [confidence, frequency]);
}
