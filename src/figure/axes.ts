import { element, label } from './svg.ts';

export interface Axis {
  label: string;
  minimum: number;
  maximum: number;
  /** Of a tick's value; as short as it goes when not given. */
  format?: (value: number) => string;
  /** Values to mark; round ones when not given. */
  ticks?: number[];
}

/** Where a panel draws its data, and how values become coordinates. */
export interface PlotArea {
  left: number;
  top: number;
  right: number;
  bottom: number;
  x(value: number): number;
  y(value: number): number;
}

export const asPercent = (value: number): string => `${Math.round(value * 100)} %`;

/** The area inside title, axes and `legendRows` lines of legend. */
export function plotArea(width: number, height: number, xAxis: Axis, yAxis: Axis, legendRows: number): PlotArea {
  const left = 62;
  const top = 28 + 16 * legendRows;
  const right = width - 12;
  const bottom = height - 40;
  const scale = ({ minimum, maximum }: Axis, from: number, to: number): ((value: number) => number) => {
    const span = maximum - minimum || 1;
    return (value) => from + ((value - minimum) / span) * (to - from);
  };
  return { left, top, right, bottom, x: scale(xAxis, left, right), y: scale(yAxis, bottom, top) };
}

/** Panel title, grid lines, tick labels and axis labels. */
export function axisElements(title: string, area: PlotArea, xAxis: Axis, yAxis: Axis, gridX: boolean = false): string {
  const { left, top, right, bottom } = area;
  const parts = [label(title, { x: 0, y: 14, class: 'panel-title' })];
  for (const value of yAxis.ticks ?? ticks(yAxis.minimum, yAxis.maximum, 5)) {
    const y = area.y(value);
    parts.push(
      element('line', { class: 'grid', x1: left, x2: right, y1: y, y2: y }),
      label(tickText(yAxis, value), { x: left - 6, y: y + 4, class: 'soft', 'text-anchor': 'end' }),
    );
  }
  for (const value of xAxis.ticks ?? ticks(xAxis.minimum, xAxis.maximum, 8)) {
    const x = area.x(value);
    if (gridX) parts.push(element('line', { class: 'grid', x1: x, x2: x, y1: top, y2: bottom }));
    parts.push(label(tickText(xAxis, value), { x, y: bottom + 16, class: 'soft', 'text-anchor': 'middle' }));
  }
  parts.push(
    label(xAxis.label, { x: (left + right) / 2, y: bottom + 34, class: 'soft', 'text-anchor': 'middle' }),
    label(yAxis.label, {
      x: 0,
      y: 0,
      class: 'soft',
      'text-anchor': 'middle',
      transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)`,
    }),
  );
  return parts.join('');
}

/** Round values within [minimum, maximum], about `count` of them. */
export function ticks(minimum: number, maximum: number, count: number): number[] {
  const span = maximum - minimum;
  if (!(span > 0) || !Number.isFinite(span)) return [minimum];
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const values: number[] = [];
  for (let i = Math.ceil(minimum / step - 1e-9); i * step <= maximum + step * 1e-9; i++) {
    values.push(Number((i * step).toPrecision(12)));
  }
  return values;
}

function tickText({ format }: Axis, value: number): string {
  return format === undefined ? String(value) : format(value);
}
