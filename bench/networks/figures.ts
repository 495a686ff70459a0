/** Figures of the network measurement. */
import { linePanel, type LineSeries } from '../../src/figure/line-panel.ts';
import { type Panel, renderFigure } from '../../src/figure/svg.ts';
import { layouts, networks } from './matrix.ts';
import { median } from '../machine.ts';
import { requestsKey, type CellResult, type Results } from './results.ts';
import { baseline, byDefault, latencyRatio, measuredStepMs, ours, oursWithReplicas, setupOf } from './summary.ts';

/** From the one where bytes cost least to the one where they cost most. */
const order = ['memory', 'lan-1g', 'nodes-1g', 'lan-100m', 'nodes-100m'];
/** Rate of the links; `2x2` = two nodes of two ranks. */
const tickNames: Record<string, string> = {
  memory: 'memory',
  'lan-1g': '1G',
  'nodes-1g': '2x2 1G',
  'lan-100m': '100M',
  'nodes-100m': '2x2 100M',
};
/** By what they are called in figures: the setup of a cell. */
const shown: Record<string, (cell: CellResult) => string> = {
  alltoallv: () => 'alltoallv',
  [baseline]: () => baseline,
  [ours]: () => ours,
  [oursWithReplicas]: () => oursWithReplicas,
  [`${ours}, as it runs by default`]: byDefault,
};

/** Latency on each network relative to `dedup`, one panel per layout; the geometric mean over workloads. */
export function latencyFigure({ cells }: Results): string {
  const names = order.filter((name) => cells.some((cell) => cell.network === name));
  const panels = layouts.flatMap(({ name: layout }): Panel[] => {
    const own = cells.filter((cell) => cell.layout === layout && names.includes(cell.network));
    if (own.length === 0) return [];
    const series = Object.entries(shown).map(([name, setupIn]): LineSeries => ({
      name,
      points: names.map((network, x) => [x, geometricMean(own, network, setupIn)]),
      marks: true,
    }));
    const highest = Math.max(...series.flatMap(({ points }) => points.map(([, y]) => y)).filter(Number.isFinite));
    return [
      linePanel({
        title: layout,
        ...{ width: 420, height: 340 },
        x: {
          label: 'network',
          ...{ minimum: -0.2, maximum: names.length - 0.8, ticks: names.map((_, x) => x) },
          format: (x) => tickNames[names[x] ?? ''] ?? '',
        },
        y: { label: `latency / latency of ${baseline}`, minimum: 0, maximum: highest * 1.08 },
        series,
        guide: [
          [-0.2, 1],
          [names.length - 0.8, 1],
        ],
      }),
    ];
  });
  return renderFigure(
    {
      title: 'Latency relative to dedup on contiguous placement, by network',
      description: `End-to-end latency of schedules relative to ${baseline} on networks from shared memory to 100 Mbit/s, one panel per attention layout.`,
    },
    panels,
  );
}

function geometricMean(cells: CellResult[], network: string, setupIn: (cell: CellResult) => string): number {
  const logs = cells
    .filter((cell) => cell.network === network)
    .map((cell) => Math.log(latencyRatio(cell, setupIn(cell), baseline)[0]));
  return logs.length === 0 ? Number.NaN : Math.exp(logs.reduce((sum, value) => sum + value, 0) / logs.length);
}

/** One rank on one core against four ranks on every network: latency relative to the one rank. */
export function machinesFigure({ cells, references }: Results): string {
  const names = order.filter((name) => cells.some((cell) => cell.network === name));
  const setupsShown = ['deepspeed-moe', 'alltoallv', baseline, ours];
  const panels = (['prefill', 'decode'] as const).map((kind): Panel => {
    const own = cells.filter(({ workload }) => workload.startsWith(kind));
    const ratio = (cell: CellResult, setup: string): number => {
      const one = references.contiguous?.[requestsKey(cell)]?.e2eMs;
      const mine = setupOf(cell, setup);
      if (one === undefined || mine === undefined) return Number.NaN;
      return Math.log10(median(mine.samples.e2eMs) / median(one));
    };
    const series = setupsShown.map((setup): LineSeries => ({
      name: setup,
      points: names.map((network, x) => {
        const values = own
          .filter((cell) => cell.network === network)
          .map((cell) => ratio(cell, setup))
          .filter(Number.isFinite);
        return [x, values.length === 0 ? Number.NaN : values.reduce((sum, value) => sum + value, 0) / values.length];
      }),
      marks: true,
    }));
    const values = series.flatMap(({ points }) => points.map(([, y]) => y)).filter(Number.isFinite);
    return linePanel({
      title: kind,
      ...{ width: 420, height: 340 },
      x: {
        label: 'network',
        ...{ minimum: -0.2, maximum: names.length - 0.8, ticks: names.map((_, x) => x) },
        format: (x) => tickNames[names[x] ?? ''] ?? '',
      },
      y: {
        label: 'latency / latency of one rank',
        ...{ minimum: Math.min(-0.5, ...values) - 0.05, maximum: Math.max(1, ...values) + 0.05 },
        ticks: [0.25, 0.5, 1, 2, 5, 10, 20, 50].map(Math.log10),
        format: (exponent) => String(Number((10 ** exponent).toPrecision(2))),
      },
      series,
      guide: [
        [-0.2, 0],
        [names.length - 0.8, 0],
      ],
    });
  });
  return renderFigure(
    {
      title: 'Four ranks against one, by network',
      description:
        'End-to-end latency on four ranks over that of one rank, on each network; above the dashed line more ranks made it slower.',
    },
    panels,
  );
}

/** Predicted against measured step time on the shaped networks, on logarithmic axes. */
export function predictionFigure(results: Results): string | undefined {
  const { cells, predictedStepMs } = results;
  const points = (network: string): [number, number][] =>
    cells
      .filter((cell) => cell.network === network)
      .flatMap((cell) =>
        cell.setups.flatMap((setup): [number, number][] => {
          const predicted = predictedStepMs?.[cell.cell]?.[setup.setup];
          if (predicted === undefined) return [];
          const at: [number, number] = [Math.log10(measuredStepMs(setup)), Math.log10(predicted)];
          // A gap after every point: marks, no line.
          return [at, [at[0], Number.NaN]];
        }),
      );
  const series = networks
    .filter(({ kind }) => kind === 'testbed')
    .map(({ name, title }): LineSeries => ({ name: title, points: points(name), marks: true }))
    .filter((line) => line.points.length > 0);
  if (series.length === 0) return undefined;
  const values = series.flatMap((line) => line.points.flat()).filter(Number.isFinite);
  const bounds = { minimum: Math.min(...values) - 0.1, maximum: Math.max(...values) + 0.1 };
  const axis = {
    ...bounds,
    ticks: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
      .map(Math.log10)
      .filter((tick) => tick >= bounds.minimum && tick <= bounds.maximum),
    format: (exponent: number) => String(Number((10 ** exponent).toPrecision(2))),
  };
  const panel = linePanel({
    title: 'milliseconds per step',
    ...{ width: 620, height: 560 },
    x: { ...axis, label: 'measured' },
    y: { ...axis, label: 'predicted' },
    series,
    guide: [
      [bounds.minimum, bounds.minimum],
      [bounds.maximum, bounds.maximum],
    ],
  });
  return renderFigure(
    {
      title: 'The simulator against the testbed',
      description:
        'Predicted over measured step time of every cell and schedule on the shaped networks; the dashed line is equality.',
    },
    [panel],
    660,
  );
}
