import { type Axis, axisElements, plotArea } from './axes.ts';
import { element, label, type Panel, pathThrough, seriesCount } from './svg.ts';

export interface LineSeries {
  name: string;
  /** [x, y]; a y that is not finite leaves a gap. */
  points: [number, number][];
  /** Lower and upper y per point, shaded. */
  band?: [number, number][];
  /** Show each point. */
  marks?: boolean;
}

export interface LinePanelOptions {
  title: string;
  width: number;
  height: number;
  x: Axis;
  y: Axis;
  series: LineSeries[];
  /** Dashed, in data coordinates. */
  guide?: [number, number][];
}

/** Lines over a common x axis, each named in a legend. */
export function linePanel({ title, width, height, x, y, series, guide }: LinePanelOptions): Panel {
  const area = plotArea(width, height, x, y, series.length > 1 ? series.length : 0);
  const toArea = (points: [number, number][]): [number, number][] =>
    points.map(([px, py]) => [area.x(px), Number.isFinite(py) ? area.y(py) : Number.NaN]);
  const parts = [axisElements(title, area, x, y)];
  if (guide !== undefined) parts.push(element('path', { class: 'guide', d: pathThrough(toArea(guide)) }));
  for (const [index, { name, points, band, marks }] of series.entries()) {
    const colour = index % seriesCount;
    if (band !== undefined) {
      const known = points
        .map(([px], i) => [px, ...band[i]!] as const)
        .filter(([, low, high]) => Number.isFinite(low + high));
      const outline = [
        ...known.map(([px, low]): [number, number] => [px, low]),
        ...known.toReversed().map(([px, , high]): [number, number] => [px, high]),
      ];
      if (outline.length > 0)
        parts.push(element('path', { class: `fill-${colour} band`, d: `${pathThrough(toArea(outline))}Z` }));
    }
    const placed = toArea(points);
    parts.push(element('path', { class: `line-${colour}`, d: pathThrough(placed) }));
    const alone = placed.filter(([, py]) => Number.isFinite(py)).length === 1;
    if (marks === true || alone) {
      for (const [cx, cy] of placed) {
        if (Number.isFinite(cy)) parts.push(element('circle', { class: `fill-${colour}`, cx, cy, r: 3 }));
      }
    }
    if (series.length > 1) {
      const legendY = 34 + 16 * index;
      parts.push(
        element('line', {
          class: `line-${colour}`,
          x1: area.left,
          x2: area.left + 18,
          y1: legendY - 4,
          y2: legendY - 4,
        }),
        label(name, { x: area.left + 24, y: legendY }),
      );
    }
  }
  return { width, height, body: parts.join('') };
}
