/** What the relay says about itself: a small file of numbers that it has mapped, since writing one would hold frames up. */
import type { LatenessSummary } from './lateness.ts';

export interface RelayStatistics {
  frames: number;
  bytes: number;
  /** Frames lost because more was under way than the relay holds, or because the kernel refused them. */
  dropped: number;
  /** How far from its due time a delayed frame left the relay, in microseconds; early ones are negative. */
  latenessUs: LatenessSummary | null;
}

const fields = 8;
export const statisticsBytes: number = fields * Float64Array.BYTES_PER_ELEMENT;

export function encodeStatistics({ frames, bytes, dropped, latenessUs }: RelayStatistics, into: Float64Array): void {
  into[0] = frames;
  into[1] = bytes;
  into[2] = dropped;
  into[3] = latenessUs === null ? 0 : 1;
  if (latenessUs === null) return;
  into[4] = latenessUs.p1;
  into[5] = latenessUs.p50;
  into[6] = latenessUs.p99;
  into[7] = latenessUs.maximum;
}

/** Undefined for a file that is not a relay's. */
export function decodeStatistics(content: Uint8Array): RelayStatistics | undefined {
  if (content.length !== statisticsBytes) return undefined;
  const [frames, bytes, dropped, delayed, p1, p50, p99, maximum] = new Float64Array(new Uint8Array(content).buffer);
  return {
    frames: frames!,
    bytes: bytes!,
    dropped: dropped!,
    latenessUs: delayed === 0 ? null : { p1: p1!, p50: p50!, p99: p99!, maximum: maximum! },
  };
}
