import { type Axis, axisElements, plotArea } from './axes.ts';
import { element, type Panel } from './svg.ts';

export interface BarPanelOptions {
  title: string;
  width: number;
  height: number;
  x: Axis;
  y: Axis;
  /** From, to and height of each bar, in data coordinates. */
  bars: { from: number; to: number; value: number }[];
}

/** Bars that stand on the lower end of the y axis. */
export function barPanel({ title, width, height, x, y, bars }: BarPanelOptions): Panel {
  const area = plotArea(width, height, x, y, 0);
  const parts = [axisElements(title, area, x, y)];
  for (const { from, to, value } of bars) {
    if (!Number.isFinite(value)) continue;
    const left = area.x(from) + 1;
    const top = area.y(value);
    parts.push(
      element('rect', {
        class: 'fill-0',
        x: left,
        y: top,
        width: Math.max(0.5, area.x(to) - 1 - left),
        height: Math.max(0, area.bottom - top),
      }),
    );
  }
  return { width, height, body: parts.join('') };
}
