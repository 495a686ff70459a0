import type { ScheduleName } from '../engine/api.ts';
import { DeduplicatedSchedule } from './deduplicated.ts';
import { ExpertRowSchedule } from './expert-rows.ts';
import type { MoeSchedule, ScheduleResources } from './schedule.ts';
import { ContiguousSlices, type SliceChooser } from './token-slices.ts';

/** Every schedule by name; `speculativeSlices` is asked for only by `speculative`. */
const schedules: Record<
  ScheduleName,
  (resources: ScheduleResources, speculativeSlices: () => SliceChooser) => MoeSchedule
> = {
  'deepspeed-moe': (resources) => new ExpertRowSchedule('deepspeed-moe', resources, true),
  alltoallv: (resources) => new ExpertRowSchedule('alltoallv', resources, false),
  dedup: (resources) => new DeduplicatedSchedule('dedup', resources, new ContiguousSlices(resources.tensorGroup.size)),
  speculative: (resources, slices) => new DeduplicatedSchedule('speculative', resources, slices()),
};

export function createSchedule(
  name: ScheduleName,
  resources: ScheduleResources,
  speculativeSlices: () => SliceChooser,
): MoeSchedule {
  return schedules[name](resources, speculativeSlices);
}
