import type {
  GenerationRequest,
  Layout,
  LogitsKept,
  OverlapName,
  PlanSource,
  RunOptions,
  RunReport,
  ScheduleName,
  Session,
  SessionOptions,
} from '../engine/api.ts';
import { warmUp } from '../engine/warm-up.ts';
import type { Plan, PredictorName } from '../plan/plan.ts';
import { cachePositionsFor } from './prompts.ts';

/** Baselines run as engines do without a plan; `speculative` runs on the plan under test. */
export type PlanRole = 'contiguous' | 'planned';

export function planRoleOf(schedule: ScheduleName): PlanRole {
  return schedule === 'speculative' ? 'planned' : 'contiguous';
}

export interface CompareSetup {
  modelDirectory: string;
  layout: Layout;
  plans: Record<PlanRole, Plan>;
  schedules: ScheduleName[];
  predictor: PredictorName;
  requests: GenerationRequest[];
  /** Timed runs of each schedule, after the checked one. */
  repeats: number;
  /** A session whose runs have taken less by then is run some more before the timed runs: compilers are not done with it. */
  warmUpMs: number;
  stepTokens: number;
  logits: Exclude<LogitsKept, 'none'>;
  /** On the layout's runs, undefined for the session's default; one rank has nothing to overlap. */
  overlap: readonly OverlapName[] | undefined;
  /** Undefined for the session's default. */
  compactRows: boolean | undefined;
  /** Likewise. */
  oneShotTokens: number | undefined;
  /** On the layout's runs. */
  threadsPerRank: number;
  /** Steps of the recorded timelines; 0 = none. */
  timelineSteps: number;
  /** Of the layout's runs; the one-rank runs are a thread of this process. */
  transport: Pick<SessionOptions, 'transport' | 'mpi' | 'link'>;
  /** Where the planned plan was read from. */
  planFile: string | undefined;
}

export interface ScheduleRuns {
  schedule: ScheduleName;
  /** Keeps logits; also the warm-up, so its times are not used. */
  checked: RunReport;
  /** Without logits. */
  timed: RunReport[];
  /** Recorded after the timed runs, when asked for. */
  timeline: RunReport | undefined;
}

export interface CompareRuns {
  schedules: ScheduleRuns[];
  /** One rank under the plan: what every schedule on that plan must equal. */
  references: Partial<Record<PlanRole, RunReport>>;
  /** [ranks] host of each. */
  hosts: readonly string[];
  /** As the layout's runs had it. */
  overlap: readonly OverlapName[];
}

/** `openSessions` of the engine: one session for each plan, all on the same ranks. */
export type OpenSessions = (
  options: Omit<SessionOptions, keyof PlanSource>,
  plans: readonly PlanSource[],
) => Promise<Session[]>;

const roles: PlanRole[] = ['contiguous', 'planned'];

/**
 * Runs everything a comparison needs:
 * 1. per plan, the one-rank run;
 * 2. per schedule, one run on the layout whose logits are kept; all plans on the same ranks;
 * 3. per plan, untimed runs until what it takes is compiled: with one schedule on it and three on the other they would not be equally warm;
 * 4. timed runs, schedules taking turns, each round starting with another one;
 * 5. when asked for, one more run per schedule whose timeline is recorded.
 */
export async function runComparison(
  setup: CompareSetup,
  openSessions: OpenSessions,
  onProgress: (what: string) => void,
  signal: AbortSignal,
): Promise<CompareRuns> {
  const { schedules, plans, layout, repeats } = setup;
  const used = roles.filter((role) => schedules.some((schedule) => planRoleOf(schedule) === role));
  const run = (session: Session, schedule: ScheduleName, logits: LogitsKept): Promise<RunReport> =>
    session.run(runOptions(setup, schedule, logits, signal));
  const runs: CompareRuns = { schedules: [], references: {}, hosts: [], overlap: [] };
  for (const role of used) {
    onProgress(`one rank, ${plans[role].solver} plan`);
    const oneRank = sessionOptions(setup, { dataParallel: 1, tensorParallel: 1 });
    const [session] = await openSessions({ ...oneRank, transport: 'threads', threadsPerRank: 1 }, [
      planSource(setup, role),
    ]);
    try {
      runs.references[role] = await run(session!, 'dedup', setup.logits);
    } finally {
      await session!.close();
    }
  }
  const sessions = await openSessions(
    sessionOptions(setup, layout),
    used.map((role) => planSource(setup, role)),
  );
  try {
    runs.hosts = sessions[0]!.hosts;
    runs.overlap = setup.overlap ?? sessions[0]!.defaultOverlap;
    const sessionOf = (schedule: ScheduleName): Session => sessions[used.indexOf(planRoleOf(schedule))]!;
    const warm: Record<PlanRole, number> = { contiguous: 0, planned: 0 };
    for (const schedule of schedules) {
      onProgress(`${schedule}, checked run`);
      const started = performance.now();
      runs.schedules.push({
        schedule,
        checked: await run(sessionOf(schedule), schedule, setup.logits),
        timed: [],
        timeline: undefined,
      });
      warm[planRoleOf(schedule)] += performance.now() - started;
    }
    for (const role of used) {
      const warming = schedules
        .filter((schedule) => planRoleOf(schedule) === role)
        .map((schedule) => () => {
          onProgress(`${schedule}, warming up`);
          return run(sessionOf(schedule), schedule, 'none');
        });
      await warmUp(warming, setup.warmUpMs - warm[role]);
    }
    for (let round = 0; round < repeats; round++) {
      for (let turn = 0; turn < schedules.length; turn++) {
        const { schedule, timed } = runs.schedules[(round + turn) % schedules.length]!;
        onProgress(`${schedule}, timed run ${round + 1} of ${repeats}`);
        timed.push(await run(sessionOf(schedule), schedule, 'none'));
      }
    }
    if (setup.timelineSteps > 0) {
      for (const entry of runs.schedules) {
        onProgress(`${entry.schedule}, timeline`);
        const options = { ...runOptions(setup, entry.schedule, 'none', signal), timelineSteps: setup.timelineSteps };
        entry.timeline = await sessionOf(entry.schedule).run(options);
      }
    }
    return runs;
  } finally {
    await Promise.all(sessions.map((session) => session.close()));
  }
}

function runOptions(setup: CompareSetup, schedule: ScheduleName, logits: LogitsKept, signal: AbortSignal): RunOptions {
  const { predictor, requests, overlap, compactRows, oneShotTokens } = setup;
  return {
    schedule,
    predictor,
    requests,
    logits,
    recordRouting: false,
    ...(overlap === undefined ? {} : { overlap }),
    ...(compactRows === undefined ? {} : { compactRows }),
    ...(oneShotTokens === undefined ? {} : { oneShotTokens }),
    signal,
  };
}

function planSource({ plans, planFile }: CompareSetup, role: PlanRole): PlanSource {
  return { plan: plans[role], ...(role === 'planned' && planFile !== undefined ? { planFile } : {}) };
}

function sessionOptions(setup: CompareSetup, layout: Layout): Omit<SessionOptions, keyof PlanSource> {
  return {
    modelDirectory: setup.modelDirectory,
    layout,
    ...setup.transport,
    threadsPerRank: setup.threadsPerRank,
    maximumStepTokens: setup.stepTokens,
    cachePositions: cachePositionsFor(setup.requests, layout.dataParallel),
  };
}
