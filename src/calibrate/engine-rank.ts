import type { RankContext } from '../comm/rank-protocol.ts';
import { createRank as createEngineRank } from '../engine/rank.ts';
import type { RankData, RankEvent, RankJob } from '../engine/rank-protocol.ts';
import { threadSeconds } from './thread-time.ts';

/** One step of a rank: what it computed, sampling included, and the copying of its own collectives; not what it waited for. */
export interface TimedStep {
  tokens: number;
  prefillTokens: number;
  seconds: number;
}

/** A rank of the engine that reports what its thread computed in each step. */
export function createRank(context: RankContext<RankData>): (job: RankJob) => TimedStep[] {
  const steps: TimedStep[] = [];
  let before = 0;
  const emit = (event: RankEvent): void => {
    if (event.type !== 'step') return;
    const now = threadSeconds();
    steps.push({ tokens: event.step.tokens, prefillTokens: event.step.prefillTokens, seconds: now - before });
    before = now;
  };
  const run = createEngineRank({ ...context, emit });
  return (job) => {
    steps.length = 0;
    before = threadSeconds();
    run({ ...job, streaming: true });
    return [...steps];
  };
}
