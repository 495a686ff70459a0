/** Quantiles in microseconds. */
export interface LatenessSummary {
  p1: number;
  p50: number;
  p99: number;
  maximum: number;
}

const earliest = -200;
const latest = 10_000;

/** Distribution of departures around their due times, in steps of one microsecond. */
export class LatenessHistogram {
  readonly #counts: Float64Array = new Float64Array(latest - earliest + 1);
  #total = 0;
  #maximum = Number.NEGATIVE_INFINITY;

  add(microseconds: number): void {
    const bucket = Math.min(latest, Math.max(earliest, Math.round(microseconds))) - earliest;
    this.#counts[bucket]! += 1;
    this.#total += 1;
    if (microseconds > this.#maximum) this.#maximum = microseconds;
  }

  summary(): LatenessSummary | null {
    if (this.#total === 0) return null;
    const [p1, p50, p99] = [this.#percentile(0.01), this.#percentile(0.5), this.#percentile(0.99)];
    return { p1, p50, p99, maximum: Math.round(this.#maximum) };
  }

  #percentile(share: number): number {
    let remaining = share * this.#total;
    let bucket = 0;
    while (bucket < this.#counts.length - 1 && (remaining -= this.#counts[bucket]!) > 0) bucket++;
    return bucket + earliest;
  }
}
