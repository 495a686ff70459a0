import { launchRanks } from '../../src/comm/rank-group.ts';
import { runConformance } from './conformance.ts';

/** Links between all of two and three ranks, between nodes of two ranks otherwise. */
runConformance('threads with emulated links', (options) =>
  launchRanks({
    ...options,
    link: { bytesPerSecond: 2e9, latencyMs: 0.02, ranksPerNode: options.size <= 3 ? 1 : 2 },
  }),
);
