/** Host side of the `threads` transport: one worker per rank. */
import { MessageChannel, Worker, type MessagePort, type ResourceLimits } from 'node:worker_threads';
import { ExitStatus, SmoeError } from '../errors.ts';
import { BaseRankGroup, reasonOf } from './base-rank-group.ts';
import { createChannelArea, createGroupArea } from './control-area.ts';
import { checkLink, wireLink, type LinkSettings } from './link-model.ts';
import { abortGroup } from './group-state.ts';
import type { MessageFromRank, MessageToRank, RankStart } from './rank-protocol.ts';
import { siblingModule } from './sibling-module.ts';
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

export interface ThreadLaunchOptions<Event> extends LaunchOptions<Event> {
  /** Links to emulate between the ranks; memory alone when not given. */
  link?: LinkSettings | undefined;
}

export interface RunRanksOptions {
  /** Interrupts the run: everything is terminated, `run` rejects with code INTERRUPTED. */
  signal?: AbortSignal;
}

/** Ranks that are ready for jobs. Any failure closes the group. */
export interface RankGroup<Job, Report> {
  readonly size: number;
  /** [size] name of the host that each rank runs on. */
  readonly hosts: readonly string[];
  /** The same job on every rank; reports come in rank order. One run at a time. */
  run(job: Job, options?: RunRanksOptions): Promise<Report[]>;
  /** A job of its own for every rank. */
  runEach(jobs: Job[], options?: RunRanksOptions): Promise<Report[]>;
  /** Terminates the ranks; safe to call twice. A run under way rejects with RANK_GROUP_CLOSED. */
  close(): Promise<void>;
}

/** Maximum ranks of a group. */
export const maximumRanks = 64;

/** Throws unless a group of `size` ranks is possible. */
export function checkRankCount(size: number): void {
  if (Number.isInteger(size) && size >= 1 && size <= maximumRanks) return;
  throw new SmoeError('RANK_COUNT', `${size} ranks asked for; 1 to ${maximumRanks} are possible`, {
    exitStatus: ExitStatus.usage,
  });
}

/** Resolves once `createRank` of every rank has returned; rejects with the first failing rank's error. */
export async function launchRanks<Job, Report, Event = never>(
  options: ThreadLaunchOptions<Event>,
): Promise<RankGroup<Job, Report>> {
  checkRankCount(options.size);
  if (options.link !== undefined) checkLink(options.link);
  const group = new ThreadRankGroup<Job, Report, Event>(options);
  await group.started;
  return group;
}

class ThreadRankGroup<Job, Report, Event> extends BaseRankGroup<Job, Report, Event> {
  readonly started: Promise<unknown>;
  private readonly workers: Worker[] = [];
  private readonly area: Int32Array<SharedArrayBuffer>;

  constructor(options: ThreadLaunchOptions<Event>) {
    super(options.size, options.onEvent);
    this.area = createGroupArea(options.size);
    this.started = this.beginPhase();
    const wirings = wireThreads(options.size, this.area, options.link);
    try {
      for (let rank = 0; rank < options.size; rank++) {
        this.workers.push(this.startWorker(rank, options, wirings[rank]));
      }
    } catch (error) {
      this.fail(new SmoeError('RANK_START', `cannot start the ranks: ${reasonOf(error)}`, { cause: error }));
    }
  }

  protected postJobs(jobs: Job[]): void {
    for (const [rank, worker] of this.workers.entries()) {
      worker.postMessage({ job: jobs[rank] } satisfies MessageToRank);
    }
  }

  protected end(failure: SmoeError): Promise<unknown> {
    abortGroup(this.area, this.size, 'COMM_ABORTED', failure.message);
    return Promise.all(this.workers.map((worker) => worker.terminate()));
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
}

/** Shared areas and a port for every pair of ranks; a group of one needs none. */
function wireThreads(
  size: number,
  group: Int32Array<SharedArrayBuffer>,
  settings: LinkSettings | undefined,
): (ThreadWiring | undefined)[] {
  if (size === 1) return [undefined];
  const channel = createChannelArea(size);
  const link = settings && wireLink(settings, size);
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
  return ports.map((own, rank) => ({ rank, size, group, channel, ports: own, link }));
}
