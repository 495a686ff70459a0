/**
 * Host side of the `threads` transport: starts one worker per rank, hands out jobs, collects reports, and turns the
 * failure of any rank into one error and a closed group.
 */
import { MessageChannel, Worker, type MessagePort, type ResourceLimits } from 'node:worker_threads';
import { deserializeError, ExitStatus, SmoeError } from '../errors.ts';
import { createChannelArea, createGroupArea } from './control-area.ts';
import { abortGroup } from './group-state.ts';
import type { MessageFromRank, MessageToRank, RankStart } from './rank-protocol.ts';
import type { ThreadWiring } from './thread-endpoint.ts';

export interface LaunchOptions<Event> {
  /** Ranks; as many workers are started. */
  size: number;
  /** ES module that exports `createRank` (see rank-protocol.ts). */
  entry: URL;
  /** Cloned to every rank. */
  data?: unknown;
  /** Called for what a rank emits, in the rank's order, before `run` resolves. */
  onEvent?: (event: Event, rank: number) => void;
  /** Heap and stack limits of every worker. */
  resourceLimits?: ResourceLimits;
}

export interface RunRanksOptions {
  /** Interrupts the run: everything is terminated, `run` rejects with code INTERRUPTED. */
  signal?: AbortSignal;
}

/** Ranks that are ready for jobs. Any failure closes the group. */
export interface RankGroup<Job, Report> {
  readonly size: number;
  /** The same job on every rank; reports come in rank order. One run at a time. */
  run(job: Job, options?: RunRanksOptions): Promise<Report[]>;
  /** A job of its own for every rank. */
  runEach(jobs: Job[], options?: RunRanksOptions): Promise<Report[]>;
  /** Terminates the ranks; safe to call twice. A run under way rejects with RANK_GROUP_CLOSED. */
  close(): Promise<void>;
}

/** Maximum ranks of a group. */
export const maximumRanks = 64;

/** How long a rank that was only told to stop waits for the rank that failed first to say why. */
const originGraceMs = 250;

/** Resolves once `createRank` of every rank has returned; rejects with the first failing rank's error. */
export async function launchRanks<Job, Report, Event = never>(
  options: LaunchOptions<Event>,
): Promise<RankGroup<Job, Report>> {
  const { size } = options;
  if (!Number.isInteger(size) || size < 1 || size > maximumRanks) {
    throw new SmoeError('RANK_COUNT', `${size} ranks asked for; 1 to ${maximumRanks} are possible`, {
      exitStatus: ExitStatus.usage,
    });
  }
  const group = new ThreadRankGroup<Job, Report, Event>(options);
  await group.started;
  return group;
}

/** Answers awaited from every rank: readiness at first, then the reports of a run. */
interface Phase<Answer> {
  answers: Answer[];
  missing: number;
  resolve(answers: Answer[]): void;
  reject(error: SmoeError): void;
}

class ThreadRankGroup<Job, Report, Event> implements RankGroup<Job, Report> {
  readonly size: number;
  readonly started: Promise<unknown>;
  private readonly workers: Worker[] = [];
  private readonly area: Int32Array<SharedArrayBuffer>;
  private readonly onEvent: LaunchOptions<Event>['onEvent'];
  private phase: Phase<Report> | undefined;
  private failure: SmoeError | undefined;
  private graceTimer: NodeJS.Timeout | undefined;
  private terminated: Promise<void> | undefined;

  constructor(options: LaunchOptions<Event>) {
    this.size = options.size;
    this.area = createGroupArea(options.size);
    this.onEvent = options.onEvent;
    this.started = this.beginPhase();
    const wirings = wireThreads(options.size, this.area);
    try {
      for (let rank = 0; rank < options.size; rank++) {
        this.workers.push(this.startWorker(rank, options, wirings[rank]));
      }
    } catch (error) {
      this.fail(new SmoeError('RANK_START', `cannot start the ranks: ${reasonOf(error)}`, { cause: error }));
    }
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
    const reports = this.beginPhase();
    signal?.addEventListener('abort', interrupt, { once: true });
    try {
      if (signal?.aborted === true) interrupt();
      else this.postJobs(jobs);
      return await reports;
    } finally {
      signal?.removeEventListener('abort', interrupt);
    }
  }

  async close(): Promise<void> {
    this.fail(new SmoeError('RANK_GROUP_CLOSED', 'the ranks have been closed'));
    await this.terminated;
  }

  private postJobs(jobs: Job[]): void {
    try {
      for (const [rank, worker] of this.workers.entries()) {
        worker.postMessage({ job: jobs[rank] } satisfies MessageToRank);
      }
    } catch (error) {
      const reason = reasonOf(error);
      this.fail(
        new SmoeError('RANK_JOB', `the job cannot be sent to the ranks: ${reason}`, {
          cause: error,
        }),
      );
    }
  }

  private startWorker(rank: number, options: LaunchOptions<Event>, wiring: ThreadWiring | undefined): Worker {
    const { size, entry, data, resourceLimits } = options;
    const worker = new Worker(siblingModule('rank-worker'), {
      workerData: { rank, size, entry: entry.href, data, wiring } satisfies RankStart,
      transferList: wiring?.ports.filter((port) => port !== undefined) ?? [],
      ...(resourceLimits === undefined ? {} : { resourceLimits }),
    });
    worker.on('message', (message: MessageFromRank) => this.receive(rank, message));
    worker.on('messageerror', (error) => this.died(rank, `sent an unreadable message: ${error.message}`));
    worker.on('error', (error) => this.died(rank, reasonOf(error)));
    worker.on('exit', (code) => this.died(rank, `exited with code ${code}`));
    return worker;
  }

  private receive(rank: number, message: MessageFromRank): void {
    if (this.failure !== undefined) return;
    if (message.type === 'event') {
      this.deliver(message.event as Event, rank);
    } else if (message.type === 'error') {
      const error = deserializeError(message.error, `rank ${rank}`);
      if (error.code !== 'COMM_ABORTED') this.fail(error);
      else this.graceTimer ??= setTimeout(() => this.fail(error), originGraceMs);
    } else {
      this.answer(rank, (message.type === 'report' ? message.report : undefined) as Report);
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

  private died(rank: number, reason: string): void {
    this.fail(new SmoeError('RANK_DIED', `rank ${rank} died: ${reason}`));
  }

  private beginPhase(): Promise<Report[]> {
    return new Promise((resolve, reject) => {
      this.phase = { answers: [], missing: this.size, resolve, reject };
    });
  }

  private answer(rank: number, answer: Report): void {
    const { phase } = this;
    if (phase === undefined) return;
    phase.answers[rank] = answer;
    if (--phase.missing > 0) return;
    this.phase = undefined;
    phase.resolve(phase.answers);
  }

  /** Closes the group for the first reason given; the phase under way rejects once every worker has ended. */
  private fail(error: SmoeError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    clearTimeout(this.graceTimer);
    abortGroup(this.area, this.size, 'COMM_ABORTED', error.message);
    this.terminated = Promise.all(this.workers.map((worker) => worker.terminate())).then(() => {
      this.phase?.reject(error);
      this.phase = undefined;
    });
  }
}

/** Shared areas and a port for every pair of ranks; a group of one needs none. */
function wireThreads(size: number, group: Int32Array<SharedArrayBuffer>): (ThreadWiring | undefined)[] {
  if (size === 1) return [undefined];
  const channel = createChannelArea(size);
  const ports: (MessagePort | undefined)[][] = Array.from({ length: size }, () =>
    Array.from({ length: size }, () => undefined),
  );
  for (let low = 0; low < size; low++) {
    for (let high = low + 1; high < size; high++) {
      const { port1, port2 } = new MessageChannel();
      ports[low][high] = port1;
      ports[high][low] = port2;
    }
  }
  return ports.map((own, rank) => ({ rank, size, group, channel, ports: own }));
}

/** A module beside this one, compiled or not. */
function siblingModule(name: string): URL {
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
  return new URL(`./${name}${extension}`, import.meta.url);
}

/** What to say of an error of unknown kind: its message, and the code that Node.js gives to its own. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'code' in error ? `${error.message} (${String(error.code)})` : error.message;
}
