/** What a run leaves open, chosen by what exchanges between its ranks cost. No choice changes a bit. */
import type { Communicator } from '../comm/communicator.ts';
import type { LinkSettings } from '../comm/link-model.ts';

/** Up to here steps are faster one-shot in memory; beyond, every rank routing every token costs what exchanges spare (docs/one-shot.md). */
export const mostOneShotTokens = 16;
/** From about this rate on, making rows compact takes a core as long as a link takes for what it spares (docs/compact-rows.md). */
const fastLinkBytesPerSecond = 300e6;
/** Of an exchange between threads that share a machine's cores, beside what emulated links add. */
const threadExchangeSeconds = 1e-4;

/** What exchanges between ranks cost. */
export interface ExchangeFigures {
  /** Of one, whatever it carries. */
  exchangeSeconds: number;
  /** Of a host's link, each way. */
  bytesPerSecond: number;
}

/** Emulated links, or none. */
export function emulatedFigures(link: LinkSettings | undefined): ExchangeFigures {
  return {
    exchangeSeconds: threadExchangeSeconds + (link?.latencyMs ?? 0) / 1000,
    bytesPerSecond: link?.bytesPerSecond ?? Number.POSITIVE_INFINITY,
  };
}

/** Whether compact rows are worth their making. */
export function compactRowsPay({ bytesPerSecond }: ExchangeFigures): boolean {
  return bytesPerSecond < fastLinkBytesPerSecond;
}

/**
 * Most tokens of a step for which two exchanges less are worth the bytes more, for it and every smaller step.
 *
 * On the way out of the rank that has most to send, rows of H floats for T tokens, G ranks: one-shot at most T partial rows and T partial
 * sums to each other rank; else ceil(T / G) rows there for the all-gather and, the way in counted with it, as many for the reduce-scatter; and
 * for dispatch and combine half as many each, as half of the ranks are asked for something.
 */
export function oneShotLimit(
  { exchangeSeconds, bytesPerSecond }: ExchangeFigures,
  { ranks, ranksPerHost, hiddenSize }: { ranks: number; ranksPerHost: number; hiddenSize: number },
): number {
  const others = ranks - 1;
  // Ranks of a host share its link, and send only part of what they send to other hosts.
  const leaving = (ranksPerHost * (ranks - ranksPerHost)) / others;
  const pays = (tokens: number): boolean => {
    const rows = others * (2 * tokens - 3 * Math.ceil(tokens / ranks));
    return (rows * leaving * hiddenSize * 4) / bytesPerSecond <= 2 * exchangeSeconds;
  };
  let tokens = 0;
  while (tokens < mostOneShotTokens && pays(tokens + 1)) tokens++;
  return tokens;
}

/** Bytes that `measureExchanges` sends each other rank when it measures the rate: over links where the first take longer than that, no more. */
const pairBytes = [16_384, 65_536] as const;
const longMicroseconds = 2000;
/** Between two looks at the clock. */
const calls = 3;

/** Bytes of memory that it needs. */
export function exchangeScratchBytes(ranks: number): number {
  return 2 * ranks * pairBytes[1];
}

/**
 * Times small and longer exchanges among ranks that do nothing else; some 0.1 s. Collective, and the figures are the same on every rank.
 *
 * @param scratch pointer to `exchangeScratchBytes`
 */
export function measureExchanges(
  world: Communicator,
  memory: WebAssembly.Memory,
  scratch: number,
  ranksPerHost: number,
): ExchangeFigures {
  const exchange = (bytes: number): void => {
    const counts = new Int32Array(world.size).fill(bytes);
    const starts = Int32Array.from(counts, (_, rank) => rank * bytes);
    const region = (half: number): Uint8Array =>
      new Uint8Array(memory.buffer, scratch + half * world.size * bytes, world.size * bytes);
    world.allToAll(region(0), counts, starts, region(1), counts, starts, 'control');
  };
  /** Of the slowest rank its quickest attempt: what else the machine does only ever adds. */
  const microseconds = (bytes: number, attempts: number): number => {
    let quickest = Number.POSITIVE_INFINITY;
    for (let attempt = 0; attempt < attempts; attempt++) {
      world.barrier();
      const started = performance.now();
      for (let call = 0; call < calls; call++) exchange(bytes);
      quickest = Math.min(quickest, (1000 * (performance.now() - started)) / calls);
    }
    const agreed = new Int32Array(memory.buffer, scratch, 1);
    agreed[0] = Math.max(1, Math.round(quickest));
    world.allReduceMaximum(agreed, 'control');
    return agreed[0]!;
  };
  const exchangeSeconds = microseconds(8, 40) / 1e6;
  // What an exchange takes by itself hides behind longer ones.
  const leaving = ranksPerHost * (world.size - ranksPerHost) * 1e6;
  const [few, many] = pairBytes;
  const took = microseconds(few, 5);
  const rate = (leaving * few) / took;
  return {
    exchangeSeconds,
    bytesPerSecond: took > longMicroseconds ? rate : Math.max(rate, (leaving * many) / microseconds(many, 5)),
  };
}
