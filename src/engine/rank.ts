import type { RankContext } from '../comm/rank-protocol.ts';
import { openCheckpoint } from '../model/checkpoint.ts';
import { partition } from './partition.ts';
import type { RankData, RankEvent, RankJob, RankReport } from './rank-protocol.ts';
import { RankShare } from './rank-share.ts';

export { agreementOf } from './agreement.ts';

/** Entry point of a rank: loads its share of the model, under every plan, and answers jobs. */
export function createRank(context: RankContext<RankData, RankEvent>): (job: RankJob) => RankReport {
  const { communicator: world, rank, data } = context;
  const checkpoint = openCheckpoint(data.modelDirectory);
  const part = partition(checkpoint.config, data.layout, rank);
  const tensorGroup = world.split(part.dataParallelRank, part.tensorParallelRank);
  const shares = data.plans.map(({ plan }) => new RankShare(context, checkpoint, part, plan, tensorGroup));
  checkpoint.close();
  return (job) => shares[job.plan]!.run(job);
}
