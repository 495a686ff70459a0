/**
 * For programs that mpirun or a scheduler starts on every rank: the processes themselves become the ranks, and rank 0 is
 * host as well. Groups follow each other, or stand side by side while one of them works.
 *
 *     const processes = joinProcesses();
 *     if (processes.rank > 0) return processes.follow();  // until rank 0 leaves
 *     const group = await processes.launch({ size: processes.size, entry, data });
 *     const reports = await group.run(job);
 *     await group.close();
 *     processes.leave();
 *
 * Rank 0's jobs run in its main thread, so `run` cannot be interrupted there; a signal to mpirun ends all ranks.
 */
import { deserialize, serialize } from 'node:v8';
import { ExitStatus, SmoeError } from '../errors.ts';
import { MpiEndpoint } from './mpi-endpoint.ts';
import { isInsideMpi } from './mpi-environment.ts';
import { MpiHostGroup } from './mpi-host-group.ts';
import { attendWhileIdle } from './mpi-idle.ts';
import { loadMpi } from './mpi-library.ts';
import { MailTag } from './mpi-mailbox.ts';
import { everyRank, type Agreement, type MessageToMpiRank } from './mpi-protocol.ts';
import { endedWithinMs, MpiRankServer } from './mpi-rank-server.ts';
import { watchOver, type Watch } from './mpi-watch.ts';
import type { LaunchOptions, RankGroup, RunRanksOptions } from './rank-group.ts';

export interface MpiJoinOptions<Event> extends Omit<LaunchOptions<Event>, 'resourceLimits'> {
  /** Rank 0's named values that must be equal on every rank; see `follow` for the others'. */
  agreement?: Agreement;
}

/** What rank 0 says to the processes that follow it, outside of any group. */
type MessageToFollower = { type: 'open' } | { type: 'leave' };

let joined: JoinedProcesses | undefined;

/** The processes started together with this one; starts MPI on the first call, which every process has to make. */
export function joinProcesses(): JoinedProcesses {
  joined ??= new JoinedProcesses();
  return joined;
}

export class JoinedProcesses {
  readonly rank: number;
  readonly size: number;
  private readonly endpoint: MpiEndpoint;
  private readonly groups: { failedHard: boolean }[] = [];
  private readonly watch: Watch;
  private left = false;

  constructor() {
    if (!isInsideMpi()) {
      throw new SmoeError('MPI_OUTSIDE', 'this process has not been started by mpirun', {
        hint: 'start it with mpirun -n RANKS, or start the ranks with launchMpiRanks',
      });
    }
    this.endpoint = new MpiEndpoint(loadMpi());
    this.rank = this.endpoint.rank;
    this.size = this.endpoint.size;
    this.watch = watchOver(this.endpoint, 'joined');
  }

  /** On rank 0: the group of all processes, once every rank is ready. */
  async launch<Job, Report, Event = never>(options: MpiJoinOptions<Event>): Promise<RankGroup<Job, Report>> {
    if (options.size !== this.size) {
      throw new SmoeError('RANK_COUNT', `${options.size} ranks are wanted, ${this.size} processes have been started`, {
        hint: `start ${options.size} with mpirun -n ${options.size} (srun -n ${options.size}), or ask for ${this.size} ranks`,
        exitStatus: ExitStatus.usage,
      });
    }
    await this.watch.ready;
    this.tellFollowers({ type: 'open' });
    const group = new JoinedRankGroup<Job, Report, Event>(new MpiEndpoint(this.endpoint.library), options);
    this.groups.push(group);
    await group.started;
    return group;
  }

  /**
   * On the other ranks: takes part in every group until rank 0 leaves. A rank that fails tells rank 0 and waits to be ended with
   * all others, so that rank 0 can say why.
   */
  follow(agreement: Agreement = {}): Promise<void> {
    withoutSignalListeners();
    return new Promise((resolve, reject) => {
      const stopAttending = attendWhileIdle(this.endpoint, reject);
      const ends: Promise<void>[] = [];
      this.endpoint.onMail = ({ body }) => {
        const message = deserialize(body) as MessageToFollower;
        setImmediate(() => {
          if (message.type === 'open') {
            ends.push(followGroup(new MpiEndpoint(this.endpoint.library), agreement, this.watch.ready));
            return;
          }
          stopAttending();
          this.watch.stop();
          void Promise.all(ends).then(() => {
            this.endpoint.finalize();
            resolve();
          });
        });
      };
    });
  }

  /** On rank 0, after its groups are closed: lets the others go. Where a group has failed, the end of this process ends them. */
  leave(): void {
    if (this.left) return;
    this.left = true;
    if (this.groups.some(({ failedHard }) => failedHard)) return;
    this.watch.stop();
    this.tellFollowers({ type: 'leave' });
    this.endpoint.settleMail();
    this.endpoint.finalize();
  }

  private tellFollowers(message: MessageToFollower): void {
    const body = serialize(message);
    for (let peer = 1; peer < this.size; peer++) this.endpoint.mailbox.send(peer, MailTag.message, body);
  }
}

/** Lets SIGINT and SIGTERM end this process at once, and with it the run, until the returned function is called. */
function withoutSignalListeners(): () => void {
  const signals = ['SIGINT', 'SIGTERM'] as const;
  const listeners = signals.map((signal) => process.listeners(signal));
  for (const signal of signals) process.removeAllListeners(signal);
  return () => {
    signals.forEach((signal, i) => listeners[i].forEach((listener) => process.on(signal, listener)));
  };
}

/** Serves one group's rank 0 until it closes the group. */
async function followGroup(endpoint: MpiEndpoint, agreement: Agreement, watched: Promise<void>): Promise<void> {
  const server = new MpiRankServer(endpoint, (message) => {
    endpoint.mailbox.send(0, MailTag.message, serialize(message));
  });
  const stopAttending = attendWhileIdle(endpoint, () => endpoint.kill());
  // Rank 0 ends, and with it all; a scheduler that leaves the others running is not waited for.
  endpoint.onAbort = () => void setTimeout(() => endpoint.kill(), endedWithinMs).unref();
  await new Promise<void>((resolve) => {
    endpoint.onMail = ({ body }) => {
      const message = deserialize(body) as MessageToMpiRank;
      setImmediate(() => {
        if (message.type === 'stop') {
          stopAttending();
          resolve();
        } else {
          void server.handle(
            message.type === 'start' ? { ...message, agreement: { ...message.agreement, ...agreement } } : message,
          );
        }
      });
    };
    void watched.then(() => server.introduce());
  });
}

class JoinedRankGroup<Job, Report, Event> extends MpiHostGroup<Job, Report, Event> {
  readonly started: Promise<void>;
  /** Whether it ended otherwise than by being closed at rest. */
  failedHard = false;
  private readonly endpoint: MpiEndpoint;
  private readonly server: MpiRankServer;
  private readonly stopAttending: () => void;

  constructor(endpoint: MpiEndpoint, options: MpiJoinOptions<Event>) {
    super(endpoint.size, options.onEvent);
    this.endpoint = endpoint;
    this.server = new MpiRankServer(endpoint, (message) => this.hear(0, message));
    endpoint.onMail = ({ from, body }) => this.receiveBody(from, body);
    this.stopAttending = attendWhileIdle(endpoint, (error) => {
      this.fail(new SmoeError('MPI_FAILED', String(error), { cause: error }));
    });
    this.started = this.start(options, options.agreement ?? {});
    this.server.introduce();
  }

  protected sendBody(to: number, body: Uint8Array): void {
    for (let peer = 1; peer < this.size; peer++) {
      if (to === everyRank || to === peer) this.endpoint.mailbox.send(peer, MailTag.message, body);
    }
    if (to !== everyRank && to !== 0) return;
    const message = deserialize(body) as MessageToMpiRank;
    if (message.type !== 'stop') setImmediate(() => void this.server.handle(message));
  }

  /** A job blocks the main thread: signals must not wait for a listener that cannot run before its end. */
  override async runEach(jobs: Job[], options?: RunRanksOptions): Promise<Report[]> {
    const restore = withoutSignalListeners();
    try {
      return await super.runEach(jobs, options);
    } finally {
      restore();
    }
  }

  /** A group closed at rest leaves MPI running; any other end leaves that to the end of this process, which mpirun notices. */
  protected async end(failure: SmoeError): Promise<void> {
    if (failure.code === 'RANK_GROUP_CLOSED' && this.isIdle) {
      this.send({ type: 'stop' });
      this.endpoint.settleMail();
    } else {
      this.failedHard = true;
      this.endpoint.abort('COMM_ABORTED', failure.message);
    }
    this.stopAttending();
  }
}
