import type { Purpose } from '../comm/communicator.ts';
import type { PredictorName } from '../plan/plan.ts';
import type { RoutingChunk } from '../schedule/routing-observer.ts';
import type { RankTimeline } from '../timeline/rank-timeline.ts';
import type {
  FinishReason,
  GenerationRequest,
  Layout,
  LogitsKept,
  OverlapName,
  PlanSource,
  ScheduleName,
} from './api.ts';

/** What a rank is started with. */
export interface RankData {
  modelDirectory: string;
  layout: Layout;
  /** The rank holds its share of the model under each. */
  plans: readonly PlanSource[];
  stepTokens: number;
  cachePositions: number;
  /** Threads that compute, 1 when left out. */
  threads?: number;
}

/** Kept logits of one step on one rank: its columns of n positions. */
export interface LogitsChunk {
  /** [n] request and position of each row. */
  requests: Int32Array;
  positions: Int32Array;
  /** [n][columns of this rank] */
  values: Float32Array;
}

/** Left to the ranks, which measure the links between their hosts. */
export interface ByMeasuring {
  ranksPerHost: number;
}

/** One run, the same for every rank; plain data, so that it can cross any process boundary. */
export interface RankJob {
  /** Index of the plan to run under, in `RankData.plans`. */
  plan: number;
  schedule: ScheduleName;
  predictor: PredictorName;
  requests: GenerationRequest[];
  /** [request] data-parallel rank. */
  placement: Int32Array;
  /** [request] first row in the routing record; every request has prompt + maxNewTokens rows. */
  firstRecordRow: Int32Array;
  recordRouting: boolean;
  overlap: readonly OverlapName[];
  compactRows: boolean | ByMeasuring;
  /** Steps of at most so many tokens go one-shot; of at most `most` where measuring decides. */
  oneShotTokens: number | (ByMeasuring & { most: number });
  /** Of no meaning without `microbatch`. */
  microbatchTokens?: number;
  logits: LogitsKept;
  /** Emit events while running. */
  streaming: boolean;
  /** Record a timeline of so many steps; 0 = none. */
  timelineSteps: number;
}

/** One step as one rank saw it. */
export interface RankStep {
  /** Tokens of this rank's group, and the number of tensor ranks that report the same ones. */
  tokens: number;
  groupRanks: number;
  prefillTokens: number;
  milliseconds: number;
  waitMs: number;
  bytes: Record<Purpose, number>;
}

export interface RankOutput {
  request: number;
  tokens: number[];
  finishReason: FinishReason;
  /** Milliseconds since the run began, per generated token. */
  tokenMs: number[];
}

export interface RankReport {
  /** Only from tensor rank 0 of each group. */
  outputs: RankOutput[];
  steps: RankStep[];
  bytes: Record<Purpose, number>;
  messages: number;
  /** What was chosen, where that was left open. */
  compactRows: boolean;
  oneShotTokens: number;
  /** [L][statisticFields] */
  statistics: Float64Array;
  /** When recorded. */
  routing: RoutingChunk[];
  /** When kept. */
  logits: LogitsChunk[];
  wallMs: number;
  /** [stepKinds][phases] milliseconds; see PhaseClock. */
  phases: Float64Array;
  timeline: RankTimeline | undefined;
}

export type RankEvent =
  | { type: 'step'; rank: number; index: number; step: RankStep }
  | {
      type: 'token';
      index: number;
      request: number;
      token: number;
      generated: number;
      finishReason: FinishReason | undefined;
    };
