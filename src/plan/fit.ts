import { ExitStatus, SmoeError } from '../errors.ts';
import type { Plan } from './plan.ts';

/** The model and layout a plan is to serve. */
export interface PlanTarget {
  modelFingerprint: string;
  layers: number;
  experts: number;
  topK: number;
  vocabularySize: number;
  /** Expert-parallel ranks. */
  ranks: number;
}

/**
 * Throws PLAN_OTHER_MODEL or PLAN_LAYOUT unless the plan was made for this model and its devices fold onto the ranks: each rank
 * owns a contiguous block of a power of two devices, a subtree of the summation tree over devices (docs/bit-identity.md).
 */
export function assertPlanFits(plan: Plan, target: PlanTarget): void {
  for (const field of ['layers', 'experts', 'topK', 'vocabularySize', 'modelFingerprint'] as const) {
    if (plan[field] === target[field]) continue;
    throw new SmoeError(
      'PLAN_OTHER_MODEL',
      `the plan is for another model: ${field} is ${plan[field]} in the plan, ${target[field]} in the model`,
      {
        hint: 'solve a plan from a trace of this model: smoe trace record, smoe plan',
      },
    );
  }
  const { ranks } = target;
  if (ranks > plan.experts) {
    throw new SmoeError(
      'PLAN_LAYOUT',
      `${ranks} ranks cannot share ${plan.experts} experts: every rank must own at least one`,
      {
        hint: `use at most ${plan.experts} ranks`,
        exitStatus: ExitStatus.noFeasiblePlan,
      },
    );
  }
  const devicesPerRank = plan.devices / ranks;
  if (!Number.isInteger(devicesPerRank) || (devicesPerRank & (devicesPerRank - 1)) !== 0) {
    throw new SmoeError('PLAN_LAYOUT', `a plan of ${plan.devices} devices cannot be served by ${ranks} ranks`, {
      hint: `use ${servableRanks(plan.devices).join(', ')} ranks, or solve a plan with --devices ${ranks}`,
      exitStatus: ExitStatus.noFeasiblePlan,
    });
  }
}

/** Rank counts a plan of so many devices folds onto, ascending. */
export function servableRanks(devices: number): number[] {
  const ranks = [devices];
  while (ranks[0]! % 2 === 0) ranks.unshift(ranks[0]! / 2);
  return ranks;
}
