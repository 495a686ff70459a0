import { launchMpiRanks } from '../comm/mpi-rank-group.ts';
import { launchRanks, type RankGroup } from '../comm/rank-group.ts';
import { pairBytes } from './exchange-rank.ts';
import { minimizePositive, squaredLogRatio } from './pattern-search.ts';

export const calibratedTransports = ['threads', 'mpi'] as const;
export type CalibratedTransport = (typeof calibratedTransports)[number];

export interface ExchangeCost {
  /** Of a collective, whatever it carries. */
  latencySeconds: number;
  /** Of what one rank sends while all send. */
  bytesPerSecond: number;
  samples: { bytesPerRank: number; seconds: number; modelledSeconds: number }[];
}

/** Times all-to-all exchanges of several sizes among ranks on this machine, which share its cores as in a run. */
export async function measureExchange(
  transport: CalibratedTransport,
  ranks: number,
  signal: AbortSignal,
): Promise<ExchangeCost> {
  const entry = new URL(import.meta.url.endsWith('.ts') ? './exchange-rank.ts' : './exchange-rank.js', import.meta.url);
  const launch = transport === 'mpi' ? launchMpiRanks<undefined, number[]> : launchRanks<undefined, number[]>;
  const group: RankGroup<undefined, number[]> = await launch({ size: ranks, entry });
  try {
    const reports = await group.run(undefined, { signal });
    const slowest = pairBytes.map((_, size) => Math.max(...reports.map((seconds) => seconds[size]!)));
    return fitExchange(
      pairBytes.map((bytes) => bytes * (ranks - 1)),
      slowest,
    );
  } finally {
    await group.close();
  }
}

/** @param bytes [sizes] that each rank sends; @param seconds [sizes] */
export function fitExchange(bytes: readonly number[], seconds: readonly number[]): ExchangeCost {
  const model = (size: number, [latency, rate]: number[]): number => latency! + size / rate!;
  const fitted = minimizePositive([seconds[0]!, 1e9], (parameters) =>
    seconds.reduce((sum, measured, i) => sum + squaredLogRatio(model(bytes[i]!, parameters), measured), 0),
  );
  return {
    latencySeconds: fitted[0]!,
    bytesPerSecond: fitted[1]!,
    samples: bytes.map((size, i) => ({
      bytesPerRank: size,
      seconds: seconds[i]!,
      modelledSeconds: model(size, fitted),
    })),
  };
}
