import type { ScheduleName } from '../engine/api.ts';
import type { ScheduleReport } from './compare-report.ts';
import { formatMilliseconds } from './format.ts';

export interface Recommendation {
  schedule: ScheduleName;
  reason: string;
}

/** Times closer than this are taken as equal; the schedule that sends less is then the better one. */
const equalWithin = 0.03;

/**
 * Which schedule to run, by the measured end-to-end latency (p50); null when there is nothing to choose from.
 *
 * @param network what the report calls the network
 */
export function recommend(
  schedules: Pick<ScheduleReport, 'name' | 'bytes' | 'e2eMs'>[],
  network: string,
): Recommendation | null {
  if (schedules.length < 2) return null;
  const latency = ({ e2eMs }: (typeof schedules)[number]): number => e2eMs.p50;
  const byLatency = schedules.toSorted((a, b) => latency(a) - latency(b));
  const [best] = byLatency
    .filter((schedule) => latency(schedule) <= latency(byLatency[0]!) * (1 + equalWithin))
    .sort((a, b) => a.bytes.total - b.bytes.total);
  const chosen = best ?? byLatency[0]!;
  const other = byLatency.find((schedule) => schedule !== chosen)!;
  const speculative = schedules.find(({ name }) => name === 'speculative');
  const percent = (share: number): string => `${Math.abs(100 * share).toFixed(1)} %`;
  const change = (to: number, from: number): number => (from === 0 ? 0 : to / from - 1);
  if (speculative !== undefined && chosen !== speculative) {
    const bytes = change(speculative.bytes.total, chosen.bytes.total);
    const slower = percent(change(latency(speculative), latency(chosen)));
    const saving =
      bytes < 0
        ? `speculative sends ${percent(bytes)} fewer bytes than ${chosen.name} but takes ${slower} longer (e2e p50): over ` +
          `${network} they cost less than predicting and permuting`
        : `speculative sends no fewer bytes than ${chosen.name} here and takes ${slower} longer (e2e p50)`;
    return { schedule: chosen.name, reason: saving };
  }
  const time = change(latency(chosen), latency(other));
  const bytes = change(chosen.bytes.total, other.bytes.total);
  const amount = (share: number, less: string, more: string): string =>
    share === 0 ? `as much` : `${percent(share)} ${share < 0 ? less : more}`;
  const relation =
    time < 0
      ? `${percent(time)} less time than ${other.name}, the next best`
      : `as fast as ${other.name} within ${percent(equalWithin)}`;
  return {
    schedule: chosen.name,
    reason: `${relation} (e2e p50, ${formatMilliseconds(latency(chosen))} against ${formatMilliseconds(latency(other))}), ${amount(bytes, 'fewer bytes', 'more bytes')}`,
  };
}
