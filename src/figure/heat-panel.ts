import { type Axis, axisElements, plotArea } from './axes.ts';
import { element, label, type Panel } from './svg.ts';

export interface HeatPanelOptions {
  title: string;
  width: number;
  height: number;
  /** Columns fill the x axis from its minimum to its maximum, rows the y axis from the top down. */
  x: Axis;
  yLabel: string;
  /** [rows][columns] */
  values: number[][];
  /** Value of the full colour; higher ones look the same. */
  full: number;
  /** Says what the colours mean. */
  legend: string;
}

/** A grid of cells, the stronger the colour the higher the value. */
export function heatPanel({ title, width, height, x, yLabel, values, full, legend }: HeatPanelOptions): Panel {
  const y: Axis = { label: yLabel, minimum: values.length - 0.5, maximum: -0.5 };
  const area = plotArea(width, height, x, y, 1);
  const parts = [
    axisElements(title, area, x, { ...y, ticks: [] }),
    label(legend, { x: area.left, y: 32, class: 'soft' }),
  ];
  const rowHeight = (area.bottom - area.top) / values.length;
  const every = Math.ceil(14 / rowHeight);
  for (const [row, cells] of values.entries()) {
    const top = area.top + row * rowHeight;
    if (row % every === 0)
      parts.push(
        label(String(row), { x: area.left - 6, y: top + rowHeight / 2 + 4, class: 'soft', 'text-anchor': 'end' }),
      );
    const cellWidth = (area.right - area.left) / cells.length;
    for (const [column, value] of cells.entries()) {
      const strength = Math.max(0, Math.min(1, value / full));
      if (!(strength > 0)) continue;
      parts.push(
        element('rect', {
          class: 'cell',
          x: area.left + column * cellWidth,
          y: top,
          width: cellWidth,
          height: Math.max(0.5, rowHeight - 1),
          'fill-opacity': strength,
        }),
      );
    }
  }
  return { width, height, body: parts.join('') };
}
