import type { ScheduleName } from '../engine/api.ts';
import type { ScheduleReport } from './compare-report.ts';
import { formatChange, formatMilliseconds } from './format.ts';

export interface Recommendation {
  schedule: ScheduleName;
  reason: string;
}

/** Latencies closer than this are taken as equal; the schedule that sends less is then the better one. */
const equalWithin = 0.03;

type Candidate = Pick<ScheduleReport, 'name' | 'bytes' | 'e2eMs'>;

/**
 * Which schedule to run here, by the measured end-to-end latency (p50); null when there is nothing to choose from.
 *
 * @param network what the report calls the network
 */
export function recommend(candidates: Candidate[], network: string): Recommendation | null {
  if (candidates.length < 2) return null;
  const [fastest, ...others] = candidates.toSorted((a, b) => a.e2eMs.p50 - b.e2eMs.p50);
  const [chosen] = [
    fastest!,
    ...others.filter(({ e2eMs }) => e2eMs.p50 <= fastest!.e2eMs.p50 * (1 + equalWithin)),
  ].sort((a, b) => a.bytes.total - b.bytes.total);
  const speculative = candidates.find(({ name }) => name === 'speculative');
  const against = speculative === undefined || speculative === chosen ? undefined : speculative;
  return { schedule: chosen!.name, reason: against ? whyNot(against, chosen!, network) : why(chosen!, candidates) };
}

function why(chosen: Candidate, candidates: Candidate[]): string {
  const [next] = candidates.filter((other) => other !== chosen).sort((a, b) => a.e2eMs.p50 - b.e2eMs.p50);
  return (
    `e2e p50 ${formatMilliseconds(chosen.e2eMs.p50)}, ${formatChange(chosen.e2eMs.p50, next!.e2eMs.p50)} against ` +
    `${next!.name}, the next best; bytes ${formatChange(chosen.bytes.total, next!.bytes.total)}`
  );
}

function whyNot(speculative: Candidate, chosen: Candidate, network: string): string {
  const slower = `e2e p50 ${formatChange(speculative.e2eMs.p50, chosen.e2eMs.p50)}`;
  const bytes = formatChange(speculative.bytes.total, chosen.bytes.total);
  return speculative.bytes.total < chosen.bytes.total
    ? `speculative sends less (bytes ${bytes}) but is slower (${slower}): over ${network} the bytes it saves take less ` +
        'time than predicting and permuting'
    : `speculative saves no bytes here (${bytes}) and is slower (${slower})`;
}
