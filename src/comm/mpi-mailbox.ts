/**
 * Messages of any length between the processes of a run, outside the collectives: jobs, reports, events, errors. They
 * travel on a communicator of their own and never block the sender.
 */
import { SmoeError } from '../errors.ts';
import { mpiAnySource, mpiAnyTag, statusBytes, type MpiLibrary, type Region } from './mpi-library.ts';

export const MailTag = { message: 1, abort: 2, heartbeat: 3 } as const;

export interface Mail {
  from: number;
  tag: number;
  body: Uint8Array;
}

/** A message under way; `region` must stay where it is until its request is complete. */
interface Transfer extends Mail {
  region: Region;
  /** An MPI_Request. */
  request: Region;
}

const largestMail = 2 ** 31 - 1;

export class MpiMailbox {
  private readonly library: MpiLibrary;
  private readonly comm: number;
  /** Status at 0, flag at `flagAt`, count after it. */
  private readonly scratch: Region;
  private readonly sending: Transfer[] = [];
  private readonly receiving: Transfer[] = [];

  constructor(library: MpiLibrary, comm: number) {
    this.library = library;
    this.comm = comm;
    this.scratch = library.allocate(statusBytes + 16);
  }

  send(to: number, tag: number, body: Uint8Array): void {
    if (body.byteLength > largestMail) {
      throw new SmoeError('RANK_MESSAGE', `a message of ${body.byteLength} bytes is too long; 2 GiB are possible`);
    }
    const { library } = this;
    const region = library.allocate(body.byteLength);
    region.bytes.set(body);
    const request = library.allocate(8);
    library.check(
      library.mpi.MPI_Isend(region.address, body.byteLength, library.byteType, to, tag, this.comm, request.address),
      'sending a message',
    );
    this.sending.push({ from: to, tag, body, region, request });
  }

  /** What has arrived, in each sender's order; a message that says to abort overtakes. Never blocks. */
  poll(): Mail[] {
    this.settle();
    while (this.beginReceive());
    const arrived: Mail[] = [];
    const waiting = new Set<number>();
    for (const transfer of [...this.receiving]) {
      if (waiting.has(transfer.from) && transfer.tag !== MailTag.abort) continue;
      if (!this.isComplete(transfer)) {
        waiting.add(transfer.from);
        continue;
      }
      this.receiving.splice(this.receiving.indexOf(transfer), 1);
      arrived.push(transfer);
    }
    return arrived;
  }

  /** True once every message sent is out of this process. */
  settle(): boolean {
    while (this.sending.length > 0 && this.isComplete(this.sending[0])) this.sending.shift();
    return this.sending.length === 0;
  }

  private beginReceive(): boolean {
    const { library, comm, scratch } = this;
    const { mpi } = library;
    const flag = scratch.address + statusBytes;
    const flagAt = statusBytes / 4;
    library.check(mpi.MPI_Iprobe(mpiAnySource, mpiAnyTag, comm, flag, scratch.address), 'looking for messages');
    if (scratch.integers[flagAt] === 0) return false;
    const [from, tag] = scratch.integers;
    library.check(mpi.MPI_Get_count(scratch.address, library.byteType, flag + 4), 'looking for messages');
    const length = scratch.integers[flagAt + 1];
    const region = library.allocate(length);
    const request = library.allocate(8);
    library.check(
      mpi.MPI_Irecv(region.address, length, library.byteType, from, tag, comm, request.address),
      'receiving a message',
    );
    this.receiving.push({ from, tag, body: region.bytes.subarray(0, length), region, request });
    return true;
  }

  private isComplete({ request }: Transfer): boolean {
    const { library, scratch } = this;
    const flag = scratch.address + statusBytes;
    library.check(library.mpi.MPI_Test(request.address, flag, 0), 'moving a message');
    return scratch.integers[statusBytes / 4] !== 0;
  }
}
