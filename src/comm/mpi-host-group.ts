/** The host side of an MPI group, whatever way its messages take: starts the ranks in phases and compares them. */
import { deserialize, serialize } from 'node:v8';
import { SmoeError } from '../errors.ts';
import { BaseRankGroup, reasonOf } from './base-rank-group.ts';
import { assertAgreement, assertSameBuild, assertSameMpi, buildFingerprint } from './mpi-agreement.ts';
import {
  everyRank,
  type Agreement,
  type MessageFromMpiRank,
  type MessageToMpiRank,
  type RankIdentity,
} from './mpi-protocol.ts';
import type { LaunchOptions } from './rank-group.ts';

export abstract class MpiHostGroup<Job, Report, Event> extends BaseRankGroup<Job, Report, Event> {
  /** To one rank or to `everyRank`. */
  protected abstract sendBody(to: number, body: Uint8Array): void;

  /** From the ranks' first words to the end of `createRank` on all of them; whatever is refused is refused before `load`. */
  protected async start(options: LaunchOptions<Event>, agreement: Agreement): Promise<void> {
    const identities = await this.beginPhase<RankIdentity>();
    this.hosts = identities.map(({ host }) => host);
    const agreements = this.beginPhase<Agreement>();
    this.attempt(() => {
      assertSameMpi(identities);
      assertSameBuild(identities, buildFingerprint());
      this.send({ type: 'start', entry: options.entry.href, data: options.data, agreement });
    });
    const given = await agreements;
    const ready = this.beginPhase();
    this.attempt(() => {
      assertAgreement(given, identities, agreement);
      this.send({ type: 'load' });
    });
    await ready;
  }

  /** Rank 0 comes last: it passes the others' jobs on, and reads nothing any more once it has its own. */
  protected postJobs(jobs: Job[]): void {
    if (jobs.every((job) => job === jobs[0])) {
      this.send({ type: 'job', job: jobs[0] });
      return;
    }
    const bodies = jobs.map((job) => serialize({ type: 'job', job } satisfies MessageToMpiRank));
    for (let rank = jobs.length - 1; rank >= 0; rank--) this.sendBody(rank, bodies[rank]);
  }

  protected receiveBody(rank: number, body: Uint8Array): void {
    this.hear(rank, deserialize(body) as MessageFromMpiRank);
  }

  protected hear(rank: number, message: MessageFromMpiRank): void {
    if (message.type === 'identity') this.answer(rank, message.identity);
    else if (message.type === 'agreement') this.answer(rank, message.agreement);
    else if (message.type === 'exit') this.died(rank, message.reason);
    else this.receive(rank, message);
  }

  protected send(message: MessageToMpiRank): void {
    this.sendBody(everyRank, serialize(message));
  }

  private attempt(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.fail(
        error instanceof SmoeError
          ? error
          : new SmoeError('RANK_START', `cannot start the ranks: ${reasonOf(error)}`, { cause: error }),
      );
    }
  }
}
