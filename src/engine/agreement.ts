/** What ranks on several hosts compare before they load anything, from each host's own files. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { openCheckpoint } from '../model/checkpoint.ts';
import { fingerprint } from '../model/fingerprint.ts';
import { encodePlan, readPlan } from '../plan/plan-file.ts';
import type { RankData } from './rank-protocol.ts';

/** A host without the plan file takes the plan that it was sent. */
export function agreementOf({ modelDirectory, plan, planFile }: RankData): Record<string, string> {
  const own = planFile !== undefined && existsSync(planFile) ? readPlan(planFile) : plan;
  const checkpoint = openCheckpoint(modelDirectory);
  try {
    return {
      model: fingerprint(checkpoint),
      plan: createHash('sha256').update(encodePlan(own)).digest('hex').slice(0, 16),
    };
  } finally {
    checkpoint.close();
  }
}
