import type { Axis } from '../figure/axes.ts';
import { linePanel, type LineSeries } from '../figure/line-panel.ts';
import { type Panel, renderFigure } from '../figure/svg.ts';
import type { SweepAxis, SweepReport, SweepSeries } from './sweep.ts';

const panelSize = { width: 436, height: 360 };

const axisLabels: Record<SweepAxis, string> = {
  ep: 'expert-parallel ranks',
  bandwidth: 'link speed, Gbit/s',
  latency: 'link latency, microseconds',
};

/**
 * Time of every run as a share of the baseline's over the swept values, one panel per plan. Above the dashed line a run does not
 * pay; the legend says where it crosses.
 *
 * @param where what was swept: model and cluster
 */
export function sweepFigure(report: SweepReport, where: string): string {
  const { baseline, series } = report;
  const plans = [...new Set(series.map(({ plan }) => plan))];
  const panels = plans.map((plan) => planPanel(report, plan));
  const title = `Where speculation stops paying: ${where}`;
  const description = `Step time relative to ${baseline.schedule} with plan ${baseline.plan}, over ${axisLabels[report.axis]}.`;
  return renderFigure({ title, description }, panels);
}

function planPanel(report: SweepReport, plan: string): Panel {
  const { axis, values, baseline, series } = report;
  const runs = series.filter((run) => run.plan === plan);
  const scale = logarithm(values);
  const ratios = series.flatMap(({ points }) => points.map((point) => (point === null ? Number.NaN : 1 - point.gain)));
  const x: Axis = {
    label: axisLabels[axis],
    minimum: scale(values[0]!),
    maximum: scale(values.at(-1)!),
    ticks: values.map(scale),
    format: (exponent) => String(Number((10 ** exponent).toPrecision(2))),
  };
  const known = ratios.filter(Number.isFinite);
  const y: Axis = {
    label: `time / time of ${baseline.schedule}, ${baseline.plan}`,
    minimum: Math.floor(10 * Math.min(0.9, ...known)) / 10,
    maximum: Math.ceil(10 * Math.max(1.1, ...known)) / 10,
  };
  const lines = runs.map((run): LineSeries => ({
    name: `${run.schedule}, ${payText(run, axis)}`,
    points: run.points.map((point, i) => [scale(values[i]!), point === null ? Number.NaN : 1 - point.gain]),
    marks: true,
  }));
  const guide: [number, number][] = [
    [x.minimum, 1],
    [x.maximum, 1],
  ];
  return linePanel({ title: `plan ${plan}`, ...panelSize, x, y, series: lines, guide });
}

/** A latency of 0 is drawn at a tenth of the least other one. */
function logarithm(values: number[]): (value: number) => number {
  const least = values.find((value) => value > 0) ?? 1;
  return (value) => Math.log10(Math.max(value, least / 10));
}

function payText({ pays, stopsPayingAt }: SweepSeries, axis: SweepAxis): string {
  if (stopsPayingAt === null) return `pays ${pays}`;
  return `pays ${pays} ${Number(stopsPayingAt.toPrecision(2))} ${sweepUnits[axis]}`;
}

export const sweepUnits: Readonly<Record<SweepAxis, string>> = { ep: 'ranks', bandwidth: 'Gbit/s', latency: 'us' };
