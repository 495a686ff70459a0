import { type Cluster, deviceCount, withLink } from '../cluster/cluster.ts';
import { ExitStatus, SmoeError } from '../errors.ts';
import type { SimulationResult } from './simulate.ts';

export const sweepAxes = ['ep', 'bandwidth', 'latency'] as const;
export type SweepAxis = (typeof sweepAxes)[number];

/** What is varied: expert-parallel ranks; Gbit/s or microseconds of the links between nodes (inside the node when there is one). */
export interface Sweep {
  axis: SweepAxis;
  /** Ascending. */
  values: number[];
}

/** `ep=2,4,8`, `bandwidth=0.1,1,10`, `latency=10,100`; USAGE_BAD_VALUE. */
export function parseSweep(text: string): Sweep {
  const [axis, list] = text.split('=', 2);
  const values = (list ?? '').split(',').map(Number);
  const wanted = axis === 'ep' ? 'whole numbers from 1' : axis === 'latency' ? 'numbers from 0' : 'numbers above 0';
  const fits = (value: number): boolean => {
    if (!Number.isFinite(value)) return false;
    return axis === 'ep' ? Number.isInteger(value) && value >= 1 : axis === 'latency' ? value >= 0 : value > 0;
  };
  if (!sweepAxes.includes(axis as SweepAxis) || list === undefined || list === '' || !values.every(fits)) {
    const problem = sweepAxes.includes(axis as SweepAxis)
      ? `${axis} needs ${wanted}`
      : `axes are ${sweepAxes.join(', ')}`;
    throw new SmoeError('USAGE_BAD_VALUE', `--sweep: ${JSON.stringify(text)}: ${problem}`, {
      hint: 'such as ep=2,4,8 or bandwidth=0.1,1,10 (Gbit/s) or latency=10,100 (microseconds)',
      exitStatus: ExitStatus.usage,
    });
  }
  return { axis: axis as SweepAxis, values: [...new Set(values)].sort((a, b) => a - b) };
}

/** The clusters of a sweep over links, one per value. */
export function sweptClusters(cluster: Cluster, { axis, values }: Sweep): Cluster[] {
  return values.map((value) =>
    withLink(cluster, axis === 'bandwidth' ? { bytesPerSecond: value * 125e6 } : { latencySeconds: value / 1e6 }),
  );
}

/** Values of an `ep` sweep beyond the cluster's devices are refused at once, not after the first replays. */
export function assertSweepFits({ axis, values }: Sweep, cluster: Cluster): void {
  const most = values.at(-1)!;
  if (axis !== 'ep' || most <= deviceCount(cluster)) return;
  throw new SmoeError(
    'CLUSTER_TOO_FEW_DEVICES',
    `${cluster.name}: ${deviceCount(cluster)} devices, the sweep asks for ${most} ranks`,
    {
      hint: 'choose a larger cluster or fewer ranks',
      exitStatus: ExitStatus.noFeasiblePlan,
    },
  );
}

export interface SweepSeries {
  plan: string;
  schedule: string;
  /** [values] null where it cannot run. */
  points: ({ totalMs: number; stepMs: number; bytes: number; gain: number } | null)[];
  /** Value at which the gain over the baseline crosses `leastGain`, interpolated; null when it never pays or always does. */
  stopsPayingAt: number | null;
  pays: 'always' | 'never' | 'up to' | 'from';
}

export interface SweepReport extends Sweep {
  /** The run that the others are compared with. */
  baseline: { plan: string; schedule: string };
  series: SweepSeries[];
}

/** Less time saved than this is not called paying. */
const leastGain = 0.01;

/**
 * @param results [runs][values]
 * @param baseline index of the run to compare with
 */
export function sweepReport(sweep: Sweep, results: (SimulationResult | null)[][], baseline: number): SweepReport {
  const base = results[baseline]!;
  const nameOf = (run: (SimulationResult | null)[]): { plan: string; schedule: string } => {
    const some = run.find((result) => result !== null);
    return { plan: some?.plan ?? '', schedule: some?.name ?? '' };
  };
  return {
    ...sweep,
    baseline: nameOf(base),
    series: results.map((run) => {
      const points = run.map((result, i) => {
        if (result === null) return null;
        const { totalMs, steps, bytes } = result;
        return {
          totalMs,
          stepMs: totalMs / steps,
          bytes: bytes.total,
          gain: 1 - totalMs / (base[i]?.totalMs ?? Number.NaN),
        };
      });
      return { ...nameOf(run), points, ...whereItPays(sweep, points) };
    }),
  };
}

/** Where a gain crosses `leastGain`, on a logarithmic axis. */
function whereItPays({ values }: Sweep, points: SweepSeries['points']): Pick<SweepSeries, 'pays' | 'stopsPayingAt'> {
  const gains = points.map((point) => point?.gain ?? Number.NaN);
  const paying = gains.map((gain) => gain >= leastGain);
  const known = gains.filter((gain) => !Number.isNaN(gain));
  if (known.every((gain) => gain >= leastGain)) return { pays: 'always', stopsPayingAt: null };
  if (known.every((gain) => gain < leastGain)) return { pays: 'never', stopsPayingAt: null };
  const direction = paying[0]! ? 'up to' : 'from';
  const at = direction === 'up to' ? paying.lastIndexOf(true) : paying.indexOf(true) - 1;
  const [left, right] = [gains[at]!, gains[at + 1]!];
  const share = (left - leastGain) / (left - right);
  const scale = (value: number): number => Math.log(Math.max(value, 1e-9));
  const crossing = Math.exp(scale(values[at]!) + share * (scale(values[at + 1]!) - scale(values[at]!)));
  return { pays: direction, stopsPayingAt: Number.isFinite(crossing) ? crossing : null };
}
