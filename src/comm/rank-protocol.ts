/** What the host of a rank group and its workers say to each other. */
import type { SerializedError } from '../errors.ts';
import type { Communicator } from './communicator.ts';
import type { ThreadWiring } from './thread-endpoint.ts';

/** What a rank is given when it starts. */
export interface RankContext<Data = unknown, Event = unknown> {
  communicator: Communicator;
  rank: number;
  size: number;
  data: Data;
  /** Sends an event to the host at once, also in the middle of a job. */
  emit(event: Event): void;
}

/** A rank's work: takes a job, may block in collectives, returns a report. */
export type RankJob<Job, Report> = (job: Job) => Report | Promise<Report>;

/** What the entry module of a rank exports as `createRank`. */
export type CreateRank<Job = unknown, Report = unknown, Event = unknown, Data = unknown> = (
  context: RankContext<Data, Event>,
) => RankJob<Job, Report> | Promise<RankJob<Job, Report>>;

/** `workerData` of a rank. */
export interface RankStart {
  rank: number;
  size: number;
  /** URL of the entry module. */
  entry: string;
  data: unknown;
  /** Undefined in a group of one. */
  wiring: ThreadWiring | undefined;
}

export interface MessageToRank {
  job: unknown;
}

export type MessageFromRank =
  | { type: 'ready' }
  | { type: 'report'; report: unknown }
  | { type: 'event'; event: unknown }
  | { type: 'error'; error: SerializedError };
