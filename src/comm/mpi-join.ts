/**
 * For programs that mpirun or a scheduler starts on every rank: the processes themselves become the ranks, and rank 0 is
 * host as well.
 *
 *     const group = await joinMpiRanks({ entry, data });  // on every rank
 *     if (group !== undefined) {                          // on rank 0
 *       const reports = await group.run(job);
 *       await group.close();
 *     }                                                   // elsewhere: undefined once rank 0 has closed the group
 *
 * Rank 0's jobs run in its main thread, so `run` cannot be interrupted there; a signal to mpirun ends all ranks.
 */
import { deserialize, serialize } from 'node:v8';
import { deserializeError, SmoeError } from '../errors.ts';
import { MpiEndpoint } from './mpi-endpoint.ts';
import { isInsideMpi } from './mpi-environment.ts';
import { MpiHostGroup } from './mpi-host-group.ts';
import { attendWhileIdle } from './mpi-idle.ts';
import { loadMpi } from './mpi-library.ts';
import { MailTag } from './mpi-mailbox.ts';
import { everyRank, type Agreement, type MessageFromMpiRank, type MessageToMpiRank } from './mpi-protocol.ts';
import { MpiRankServer } from './mpi-rank-server.ts';
import type { LaunchOptions, RankGroup } from './rank-group.ts';

export interface MpiJoinOptions<Event> extends Omit<LaunchOptions<Event>, 'size' | 'resourceLimits'> {
  /** This rank's named values that must be equal on every rank. */
  agreement?: Agreement;
}

/** On rank 0 the group, once every rank is ready; on the others undefined, once rank 0 has closed it. Once per process. */
export async function joinMpiRanks<Job, Report, Event = never>(
  options: MpiJoinOptions<Event>,
): Promise<RankGroup<Job, Report> | undefined> {
  if (!isInsideMpi()) {
    throw new SmoeError('MPI_OUTSIDE', 'this process has not been started by mpirun', {
      hint: 'start it with mpirun -n RANKS, or start the ranks with launchMpiRanks',
    });
  }
  const endpoint = new MpiEndpoint(loadMpi());
  if (endpoint.rank > 0) return follow(endpoint, options.agreement ?? {});
  const group = new JoinedRankGroup<Job, Report, Event>(endpoint, options);
  await group.started;
  return group;
}

/** Serves rank 0 until it closes the group; rejects if this rank fails or is told to abort. */
function follow(endpoint: MpiEndpoint, agreement: Agreement): Promise<undefined> {
  return new Promise((resolve, reject) => {
    const server = new MpiRankServer(endpoint, (message: MessageFromMpiRank) => {
      endpoint.mailbox.send(0, MailTag.message, serialize(message));
      if (message.type === 'error') reject(deserializeError(message.error, `rank ${endpoint.rank}`));
    });
    const stopAttending = attendWhileIdle(endpoint, reject);
    endpoint.onMail = ({ body }) => {
      const message = deserialize(body) as MessageToMpiRank;
      setImmediate(() => {
        if (message.type === 'stop') {
          stopAttending();
          endpoint.finalize();
          resolve(undefined);
        } else void server.handle(message.type === 'start' ? { ...message, agreement } : message);
      });
    };
    server.introduce();
  });
}

class JoinedRankGroup<Job, Report, Event> extends MpiHostGroup<Job, Report, Event> {
  readonly started: Promise<void>;
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
    this.started = this.start({ ...options, size: endpoint.size }, options.agreement ?? {});
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

  /** A group closed at rest shuts MPI down; any other end leaves that to the end of this process, which mpirun notices. */
  protected async end(failure: SmoeError): Promise<void> {
    if (failure.code === 'RANK_GROUP_CLOSED' && this.isIdle) {
      this.send({ type: 'stop' });
      this.stopAttending();
      while (!this.endpoint.mailbox.settle());
      this.endpoint.finalize();
    } else {
      this.endpoint.abort('COMM_ABORTED', failure.message);
    }
  }
}
