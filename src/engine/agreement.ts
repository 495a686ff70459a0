/** What ranks on several hosts compare before they load anything. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { openCheckpoint } from '../model/checkpoint.ts';
import { fingerprint } from '../model/fingerprint.ts';
import type { Plan } from '../plan/plan.ts';
import { encodePlan, readPlan } from '../plan/plan-file.ts';
import type { RankData } from './rank-protocol.ts';

/** From this host's own files. A host without a plan's file takes the plan that it was sent. */
export function agreementOf({ modelDirectory, plans }: RankData): Record<string, string> {
  const own = plans.map(({ plan, planFile }) =>
    planFile !== undefined && existsSync(planFile) ? readPlan(planFile) : plan,
  );
  const checkpoint = openCheckpoint(modelDirectory);
  try {
    return { model: fingerprint(checkpoint), plan: planHashes(own) };
  } finally {
    checkpoint.close();
  }
}

/** For each plan, 16 hex digits over everything it says. */
export function planHashes(plans: readonly Plan[]): string {
  return plans.map((plan) => createHash('sha256').update(encodePlan(plan)).digest('hex').slice(0, 16)).join(' and ');
}
