/**
 * What the host side of every transport shares: hand out jobs, collect one answer per rank, and turn the failure of any
 * rank into one error and a closed group. A transport supplies how messages reach the ranks and how they are ended.
 */
import { hostname } from 'node:os';
import { deserializeError, ExitStatus, SmoeError } from '../errors.ts';
import type { LaunchOptions, RankGroup, RunRanksOptions } from './rank-group.ts';
import type { MessageFromRank } from './rank-protocol.ts';

/** How long a rank that was only told to stop waits for the rank that failed first to say why. */
const originGraceMs = 250;

/** Answers awaited from every rank: readiness at first, then the reports of a run. */
interface Phase {
  answers: unknown[];
  missing: number;
  resolve(answers: unknown[]): void;
  reject(error: SmoeError): void;
}

export abstract class BaseRankGroup<Job, Report, Event> implements RankGroup<Job, Report> {
  readonly size: number;
  hosts: readonly string[];
  private readonly onEvent: LaunchOptions<Event>['onEvent'];
  private phase: Phase | undefined;
  private failure: SmoeError | undefined;
  private graceTimer: NodeJS.Timeout | undefined;
  private ended: Promise<void> | undefined;

  constructor(size: number, onEvent: LaunchOptions<Event>['onEvent']) {
    this.size = size;
    this.hosts = Array.from({ length: size }, () => hostname());
    this.onEvent = onEvent;
  }

  /** Sends every rank its job; may throw. */
  protected abstract postJobs(jobs: Job[]): void;
  /** Ends every rank because of `failure`; resolves once they have ended. Called once. */
  protected abstract end(failure: SmoeError): Promise<unknown>;

  protected get hasFailed(): boolean {
    return this.failure !== undefined;
  }

  /** Whether the ranks wait for a job. */
  protected get isIdle(): boolean {
    return this.phase === undefined;
  }

  run(job: Job, options?: RunRanksOptions): Promise<Report[]> {
    return this.runEach(
      Array.from({ length: this.size }, () => job),
      options,
    );
  }

  async runEach(jobs: Job[], options: RunRanksOptions = {}): Promise<Report[]> {
    if (this.failure !== undefined) throw this.failure;
    if (this.phase !== undefined) throw new SmoeError('RANK_GROUP_BUSY', 'the ranks are running another job');
    if (jobs.length !== this.size) {
      throw new SmoeError('RANK_COUNT', `${jobs.length} jobs for ${this.size} ranks`);
    }
    const { signal } = options;
    const interrupt = (): void => {
      this.fail(
        new SmoeError('INTERRUPTED', 'the run was interrupted', {
          exitStatus: ExitStatus.interrupted,
        }),
      );
    };
    const reports = this.beginPhase<Report>();
    signal?.addEventListener('abort', interrupt, { once: true });
    try {
      if (signal?.aborted === true) interrupt();
      else this.tryPostJobs(jobs);
      return await reports;
    } finally {
      signal?.removeEventListener('abort', interrupt);
    }
  }

  async close(): Promise<void> {
    this.fail(new SmoeError('RANK_GROUP_CLOSED', 'the ranks have been closed'));
    await this.ended;
  }

  /** Handles what a rank says; nothing is listened to once the group has failed. */
  protected receive(rank: number, message: MessageFromRank): void {
    if (this.failure !== undefined) return;
    if (message.type === 'event') {
      this.deliver(message.event as Event, rank);
    } else if (message.type === 'error') {
      const error = deserializeError(message.error, `rank ${rank}`);
      if (error.code !== 'COMM_ABORTED') this.fail(error);
      else this.graceTimer ??= setTimeout(() => this.fail(error), originGraceMs);
    } else {
      this.answer(rank, message.type === 'report' ? message.report : undefined);
    }
  }

  protected died(rank: number, reason: string): void {
    this.fail(new SmoeError('RANK_DIED', `rank ${rank} died: ${reason}`));
  }

  /** Awaits one answer from every rank. */
  protected beginPhase<Answer>(): Promise<Answer[]> {
    return new Promise<unknown[]>((resolve, reject) => {
      if (this.failure !== undefined) reject(this.failure);
      else this.phase = { answers: [], missing: this.size, resolve, reject };
    }) as Promise<Answer[]>;
  }

  protected answer(rank: number, answer: unknown): void {
    const { phase } = this;
    if (phase === undefined) return;
    phase.answers[rank] = answer;
    if (--phase.missing > 0) return;
    this.phase = undefined;
    phase.resolve(phase.answers);
  }

  /** Closes the group for the first reason given; the phase under way rejects once every rank has ended. */
  protected fail(error: SmoeError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    clearTimeout(this.graceTimer);
    this.ended = this.end(error).then(() => {
      this.phase?.reject(error);
      this.phase = undefined;
    });
  }

  private tryPostJobs(jobs: Job[]): void {
    try {
      this.postJobs(jobs);
    } catch (error) {
      this.fail(
        new SmoeError('RANK_JOB', `the job cannot be sent to the ranks: ${reasonOf(error)}`, {
          cause: error,
        }),
      );
    }
  }

  /** An error of the listener ends the run; it would otherwise end the process. */
  private deliver(event: Event, rank: number): void {
    try {
      this.onEvent?.(event, rank);
    } catch (error) {
      this.fail(
        error instanceof SmoeError
          ? error
          : new SmoeError('INTERNAL', `the listener for rank events failed: ${reasonOf(error)}`, {
              cause: error,
            }),
      );
    }
  }
}

/** What to say of an error of unknown kind: its message, and the code that Node.js gives to its own. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'code' in error ? `${error.message} (${String(error.code)})` : error.message;
}
