/** The machine a bench ran on, and the statistics every recipe reports. */
import { availableParallelism, cpus, release, totalmem, type } from 'node:os';

/** Model, cores, memory, system and Node.js in one line. */
export function machine(): string {
  const memory = Math.round(totalmem() / 2 ** 30);
  return `${cpus()[0]!.model.trim()}, ${availableParallelism()} cores, ${memory} GiB, ${type()} ${release()}, Node.js ${process.version}`;
}

/** Value at a quantile (0..1) by linear interpolation. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low]! + (sorted[Math.ceil(at)]! - sorted[low]!) * (at - low);
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}
