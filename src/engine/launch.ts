/** Starts the ranks of a session over the transport it asks for. */
import { isInsideMpi } from '../comm/mpi-environment.ts';
import { joinProcesses } from '../comm/mpi-join.ts';
import { launchMpiRanks } from '../comm/mpi-rank-group.ts';
import { launchRanks, type LaunchOptions, type RankGroup } from '../comm/rank-group.ts';
import { planHashes } from './agreement.ts';
import type { SessionOptions } from './api.ts';
import type { RankData, RankEvent, RankJob, RankReport } from './rank-protocol.ts';

export function startRanks(
  { transport, mpi = {}, link }: Pick<SessionOptions, 'transport' | 'mpi' | 'link'>,
  modelFingerprint: string,
  size: number,
  data: RankData,
  onEvent: (event: RankEvent) => void,
): Promise<RankGroup<RankJob, RankReport>> {
  const options: LaunchOptions<RankEvent> = {
    size,
    entry: new URL(import.meta.url.endsWith('.ts') ? './rank.ts' : './rank.js', import.meta.url),
    data,
    onEvent,
  };
  if (transport === 'threads') return launchRanks({ ...options, link });
  const agreement = { model: modelFingerprint, plan: planHashes(data.plans.map(({ plan }) => plan)) };
  return isInsideMpi()
    ? joinProcesses().launch({ ...options, agreement })
    : launchMpiRanks({ ...options, ...mpi, agreement });
}
