import { launchMpiRanks } from '../comm/mpi-rank-group.ts';
import { launchRanks, type RankGroup } from '../comm/rank-group.ts';
import { pairBytes } from './exchange-rank.ts';
import { minimizePositive, squaredLogRatio } from './pattern-search.ts';

export const calibratedTransports = ['threads', 'mpi'] as const;
export type CalibratedTransport = (typeof calibratedTransports)[number];

export interface ExchangeCost {
  /** Of a collective, whatever it carries. */
  latencySeconds: number;
  /** Of what leaves one rank, or all ranks of a host together, while all send. */
  bytesPerSecond: number;
  /** `bytes` leave a rank, or a host. */
  samples: { bytes: number; seconds: number; modelledSeconds: number }[];
}

type LaunchRanks = (options: { size: number; entry: URL }) => Promise<RankGroup<undefined, number[]>>;

export const exchangeLaunchers: Record<CalibratedTransport, LaunchRanks> = {
  threads: (options) => launchRanks(options),
  mpi: (options) => launchMpiRanks(options),
};

export interface ExchangeOptions {
  ranks: number;
  /** With so many ranks each, which share the way out of their host; without it all ranks are on one host. */
  hosts?: number;
  launch: LaunchRanks;
  signal: AbortSignal;
}

/** Times all-to-all exchanges of several sizes among ranks, which share the cores of this machine as in a run. */
export async function measureExchange({ ranks, hosts = 1, launch, signal }: ExchangeOptions): Promise<ExchangeCost> {
  const entry = new URL(import.meta.url.endsWith('.ts') ? './exchange-rank.ts' : './exchange-rank.js', import.meta.url);
  const group = await launch({ size: ranks, entry });
  try {
    const reports = await group.run(undefined, { signal });
    const slowest = pairBytes.map((_, size) => Math.max(...reports.map((seconds) => seconds[size]!)));
    const senders = hosts === 1 ? 1 : ranks / hosts;
    return fitExchange(
      pairBytes.map((bytes) => bytes * senders * (ranks - senders)),
      slowest,
    );
  } finally {
    await group.close();
  }
}

/** @param bytes [sizes] that leave a rank or host; @param seconds [sizes] */
export function fitExchange(bytes: readonly number[], seconds: readonly number[]): ExchangeCost {
  const model = (size: number, [latency, rate]: number[]): number => latency! + size / rate!;
  const fitted = minimizePositive([seconds[0]!, 1e9], (parameters) =>
    seconds.reduce((sum, measured, i) => sum + squaredLogRatio(model(bytes[i]!, parameters), measured), 0),
  );
  return {
    latencySeconds: fitted[0]!,
    bytesPerSecond: fitted[1]!,
    samples: bytes.map((size, i) => ({
      bytes: size,
      seconds: seconds[i]!,
      modelledSeconds: model(size, fitted),
    })),
  };
}
