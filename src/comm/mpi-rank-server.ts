/** What a rank of an MPI group does about the messages of its host. */
import { hostname } from 'node:os';
import { serializeError, SmoeError } from '../errors.ts';
import { buildFingerprint } from './mpi-agreement.ts';
import { connectMpi, type MpiCommunicator } from './mpi.ts';
import type { MpiEndpoint } from './mpi-endpoint.ts';
import type { Agreement, MessageFromMpiRank, MessageToMpiRank } from './mpi-protocol.ts';
import type { CreateRank, RankJob } from './rank-protocol.ts';
import { SingleCommunicator } from './single.ts';

/** What the entry module of a rank may export. */
interface RankEntry {
  createRank?: CreateRank;
  /** Named values, computed from this host's own files, that must be equal on every rank. */
  agreementOf?: (data: unknown) => Agreement | Promise<Agreement>;
}

/** How long a rank that has failed waits to be ended before it ends the run itself. */
export const endedWithinMs = 5000;

export class MpiRankServer {
  private readonly endpoint: MpiEndpoint;
  private readonly mpi: MpiCommunicator | undefined;
  private readonly post: (message: MessageFromMpiRank) => void;
  private entry: RankEntry = {};
  private data: unknown;
  private runJob: RankJob<unknown, unknown> | undefined;

  constructor(endpoint: MpiEndpoint, post: (message: MessageFromMpiRank) => void) {
    this.endpoint = endpoint;
    this.mpi = endpoint.size === 1 ? undefined : connectMpi(endpoint);
    this.post = post;
  }

  /** The first thing a rank does. */
  introduce(): void {
    this.post({
      type: 'identity',
      identity: { host: hostname(), build: buildFingerprint(), mpi: this.endpoint.library.version },
    });
  }

  /** Does what the host says and answers it; an error ends the run. */
  async handle(message: Exclude<MessageToMpiRank, { type: 'stop' }>): Promise<void> {
    try {
      if (message.type === 'start') await this.start(message);
      else if (message.type === 'load') await this.load();
      else await this.work(message.job);
    } catch (error) {
      this.fail(error);
    }
  }

  /** The host learns of the error before the peers learn that something is wrong. */
  private fail(error: unknown): void {
    this.post({ type: 'error', error: serializeError(error) });
    this.mpi?.abort();
    setTimeout(() => this.endpoint.kill(), endedWithinMs).unref();
  }

  private async start({
    entry,
    data,
    agreement,
  }: {
    entry: string;
    data: unknown;
    agreement: Agreement;
  }): Promise<void> {
    this.entry = (await import(entry)) as RankEntry;
    this.data = data;
    if (typeof this.entry.createRank !== 'function') {
      throw new SmoeError('RANK_ENTRY', `${entry} does not export a function named createRank`);
    }
    const own = (await this.entry.agreementOf?.(data)) ?? {};
    this.post({ type: 'agreement', agreement: { ...agreement, ...own } });
  }

  private async load(): Promise<void> {
    const { rank, size } = this.endpoint;
    this.runJob = await this.entry.createRank!({
      communicator: this.mpi ?? new SingleCommunicator(),
      rank,
      size,
      data: this.data,
      emit: (event) => this.post({ type: 'event', event }),
    });
    this.post({ type: 'ready' });
  }

  private async work(job: unknown): Promise<void> {
    const report = await this.runJob!(job);
    this.mpi?.finishJob();
    this.post({ type: 'report', report });
  }
}
