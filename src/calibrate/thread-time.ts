import { readFileSync } from 'node:fs';

const statistics = '/proc/thread-self/schedstat';

/**
 * Seconds that the calling thread has computed so far, where the system says (Linux): other programs then do not spoil a measurement.
 * Elsewhere the time of day.
 */
export function threadSeconds(): number {
  if (countsComputing) return computedNanoseconds() / 1e9;
  return performance.now() / 1000;
}

/** Whether `threadSeconds` leaves out what other programs take. */
export const countsComputing: boolean = computedNanoseconds() > 0;

function computedNanoseconds(): number {
  try {
    return Number(readFileSync(statistics, 'utf8').split(' ', 1)[0]);
  } catch {
    return 0;
  }
}
