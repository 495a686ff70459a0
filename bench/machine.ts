/** The machine a bench ran on, and the statistics every recipe reports. */
import { availableParallelism, cpus, release, totalmem, type } from 'node:os';
import { quantile } from '../src/cli/statistics.ts';

/** Model, cores, memory, system and Node.js in one line. */
export function machine(): string {
  const memory = Math.round(totalmem() / 2 ** 30);
  return `${cpus()[0]!.model.trim()}, ${availableParallelism()} cores, ${memory} GiB, ${type()} ${release()}, Node.js ${process.version}`;
}

export { quantile };

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}
