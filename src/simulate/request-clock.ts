import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { PhaseChoice, SimulatedStep } from './steps.ts';

export interface Percentiles {
  p50: number;
  p99: number;
}

/** Nearest-rank percentiles of the finite values; NaN of none. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99) };
}

/** When each request got its first and its last token, all of them having arrived at the start. */
export class RequestClock {
  readonly #trace: RoutingTrace;
  readonly #isPrompt: (row: number) => boolean;
  /** [requests] seconds; NaN until then. */
  readonly #first: Float64Array;
  readonly #last: Float64Array;
  readonly #decoded: Int32Array;

  constructor(trace: RoutingTrace, phases: PhaseChoice) {
    const requests = trace.labels.length;
    this.#trace = trace;
    this.#isPrompt = phases === 'recorded' ? (row) => trace.phase[row] === 0 : () => phases === 'prefill';
    this.#first = new Float64Array(requests).fill(Number.NaN);
    this.#last = new Float64Array(requests).fill(Number.NaN);
    this.#decoded = new Int32Array(requests);
  }

  stepEnded({ rows }: SimulatedStep, seconds: number): void {
    const { request, length } = this.#trace;
    for (const row of rows) {
      const own = request[row]!;
      const endsRequest = row + 1 === length || request[row + 1] !== own;
      if (this.#isPrompt(row)) {
        if (endsRequest || !this.#isPrompt(row + 1)) this.#first[own] = seconds;
      } else {
        if (this.#decoded[own]! === 0 && Number.isNaN(this.#first[own]!)) this.#first[own] = seconds;
        this.#decoded[own]!++;
      }
      if (endsRequest) this.#last[own] = seconds;
    }
  }

  /** Over the requests that finished. */
  figures(): { ttftMs: Percentiles; tpotMs: Percentiles; e2eMs: Percentiles } {
    const tpot = this.#last.map((last, request) => (last - this.#first[request]!) / this.#decoded[request]!);
    const milliseconds = (seconds: Float64Array): number[] => Array.from(seconds, (value) => value * 1000);
    return {
      ttftMs: percentiles(milliseconds(this.#first)),
      tpotMs: percentiles(milliseconds(tpot)),
      e2eMs: percentiles(milliseconds(this.#last)),
    };
  }
}
