import type { Purpose } from '../comm/communicator.ts';
import type { LinkSettings } from '../comm/link-model.ts';
import type { Plan, PredictorName } from '../plan/plan.ts';
import type { RoutingRecord } from './run-records.ts';
import type { PhaseTimes } from '../timeline/phase-times.ts';
import type { RankTimeline } from '../timeline/rank-timeline.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';

/** Ranks = expert-parallel degree = dataParallel * tensorParallel; rank = dataParallelRank * tensorParallel + tensorParallelRank. */
export interface Layout {
  dataParallel: number;
  tensorParallel: number;
}

export const scheduleNames = ['deepspeed-moe', 'alltoallv', 'dedup', 'speculative'] as const;
export type ScheduleName = (typeof scheduleNames)[number];

/**
 * What may be computed while something is on its way (docs/overlap.md). None changes a bit.
 * - `prepare`: a layer's slices, while the rows before it are being gathered;
 * - `gather`: projections of gathered rows, while others arrive;
 * - `microbatch`: one half of a step, while the other half communicates.
 */
export const overlapNames = ['prepare', 'gather', 'microbatch'] as const;
export type OverlapName = (typeof overlapNames)[number];
/** Where bytes cost next to nothing, only what is free. */
export const overlapInMemory: readonly OverlapName[] = ['prepare'];
/** A step of fewer tokens is latency, of which micro-batches have twice as much. */
export const fewestMicrobatchedTokens = 128;

export interface SamplingOptions {
  /** 0 = greedy. */
  temperature: number;
  topP: number;
  /** 0 = all. */
  topK: number;
  seed: number;
}

export interface GenerationRequest {
  /** Prompt token ids, at least one. */
  tokens: Int32Array;
  maxNewTokens: number;
  sampling: SamplingOptions;
  /** Stop strings, matched on decoded text; the match is not part of the output. */
  stopStrings: string[];
  /** Go on after an end token (benchmarks). */
  ignoreEnd: boolean;
  /** Free label, such as the domain of a prompt. */
  label: string;
}

/** `threads`: ranks are threads of this process. `mpi`: processes, on one host or many (docs/mpi.md). */
export const transportNames = ['threads', 'mpi'] as const;
export type TransportName = (typeof transportNames)[number];

/** Where `mpi` starts its ranks; without anything, on this host. */
export interface MpiPlacement {
  /** As for `mpirun --host`: "name" or "name:slots". */
  hosts?: string[];
  /** As for `mpirun --hostfile`. */
  hostfile?: string;
  /** More options for mpirun. */
  mpirunArguments?: string[];
}

export interface PlanSource {
  plan: Plan;
  /** Where the plan was read from: hosts that have the file must have the same. */
  planFile?: string;
}

export interface SessionOptions extends PlanSource {
  /** The same path on every host. */
  modelDirectory: string;
  layout: Layout;
  transport: TransportName;
  /** For `mpi`, unless this process itself was started by mpirun. */
  mpi?: MpiPlacement;
  /** Most tokens one step computes per data-parallel group; longer prompts are prefilled in chunks. */
  maximumStepTokens: number;
  /** Positions of KV cache per data-parallel group, all sequences together. */
  cachePositions: number;
  /** Threads that compute on each rank, 1 when left out. No bit changes. */
  threadsPerRank?: number;
  /** Links to emulate between the ranks of the `threads` transport; memory alone when not given. */
  link?: LinkSettings;
}

/** Which positions' logits to keep: none, those sampled from, or every position of prompts and outputs. */
export type LogitsKept = 'none' | 'sampled' | 'all';

export interface RunOptions {
  schedule: ScheduleName;
  predictor: PredictorName;
  requests: GenerationRequest[];
  logits: LogitsKept;
  recordRouting: boolean;
  /** Default `Session.defaultOverlap`. */
  overlap?: readonly OverlapName[];
  /** Whether `dedup` and `speculative` send rows compact (docs/compact-rows.md); by default only `speculative` does, over links that are slow enough (engine/exchange-choices.ts). */
  compactRows?: boolean;
  /**
   * Steps of at most so many tokens exchange rows twice a layer instead of four times, in more bytes (docs/one-shot.md): under `dedup` and
   * `speculative`, with attention tensor-parallel over all ranks. By default `speculative` does as long as that is faster (engine/exchange-choices.ts).
   */
  oneShotTokens?: number;
  /** Steps whose largest group has fewer tokens are not cut into micro-batches; default `fewestMicrobatchedTokens`. */
  microbatchTokens?: number;
  /** Data-parallel rank of each request; by default the schedule's own placement (round robin, or by expert affinity). */
  placement?: Int32Array;
  /** Called as tokens are made, in order within a request. */
  onToken?: (event: TokenEvent) => void;
  /** Record what every rank did when, for so many steps; default 0. */
  timelineSteps?: number;
  signal?: AbortSignal;
}

export interface TokenEvent {
  request: number;
  token: number;
  /** Index among the request's generated tokens. */
  index: number;
  finishReason: FinishReason | undefined;
  step: StepRecord;
}

export type FinishReason = 'length' | 'end' | 'stop';

/** One engine step, maxima over ranks for times, sums over ranks for bytes. */
export interface StepRecord {
  phase: 'prefill' | 'decode' | 'mixed';
  tokens: number;
  milliseconds: number;
  computeMs: number;
  communicationMs: number;
  bytes: Record<Purpose, number>;
}

export interface RequestOutput {
  tokens: number[];
  finishReason: FinishReason;
  dataParallelRank: number;
  ttftMs: number;
  /** Mean time per output token after the first; NaN for one token. */
  tpotMs: number;
  e2eMs: number;
}

export interface RunReport {
  outputs: RequestOutput[];
  bytes: Record<Purpose, number> & { total: number };
  messages: number;
  compactRows: boolean;
  /** Steps of at most so many tokens went one-shot. */
  oneShotTokens: number;
  localActivationRate: number;
  remoteDevicesPerToken: number;
  /** Largest / mean expert rows computed per rank, mean over layers. */
  loadImbalance: number;
  /** Of tokens placed by prediction, share whose device was really needed; NaN without prediction. */
  recall: number;
  /** Per MoE layer. */
  layers: { localActivationRate: number; remoteDevicesPerToken: number; loadImbalance: number; recall: number }[];
  promptTokens: number;
  generatedTokens: number;
  wallMs: number;
  steps: StepRecord[];
  /** [ranks] where each rank's time went. */
  phases: PhaseTimes[];
  /** [ranks] when asked for. */
  timeline: RankTimeline[] | undefined;
  /** SHA-256 over all output token ids (int32 little-endian, requests in order, each ended by -1). */
  outputSha256: string;
  /** SHA-256 over kept logits (float32 little-endian), requests in order, positions ascending; empty when none kept. */
  logitsSha256: string;
  /** [keptPositions][vocabulary], same order; undefined when none kept. */
  logits: Float32Array | undefined;
  /** Request and position of each kept row. */
  logitsRows: { request: number; position: number }[];
  trace: RoutingTrace | undefined;
  /** Raw record behind `trace`, with each token's home rank and step; see run-records.ts. */
  routing: RoutingRecord | undefined;
  /** [request] first row of the request in `routing`. */
  firstRecordRow: Int32Array;
}

/**
 * Ranks that hold one model under one plan and layout, ready to run jobs one after another. They may hold it under other plans too, for other
 * sessions (`openSessions`); a failure ends them all.
 */
export interface Session {
  readonly options: SessionOptions;
  /** [ranks] name of the host that each rank runs on. */
  readonly hosts: readonly string[];
  /** Everything when ranks are on several hosts or links are emulated, else `overlapInMemory`. */
  readonly defaultOverlap: readonly OverlapName[];
  run(options: RunOptions): Promise<RunReport>;
  /** Ends every rank, once all sessions on these ranks are closed; safe to call twice. */
  close(): Promise<void>;
}
