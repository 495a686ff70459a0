/**
 * One process's end of a run over MPI, shared by every communicator of the rank: its memory, its requests in flight, its
 * mail, and whether the run has been aborted. Runs of one process after or beside each other have an endpoint each.
 *
 * Nothing here blocks inside MPI: a blocked rank polls, so that it learns of an abort whatever it waits for. It polls
 * eagerly at first (MPI itself yields the processor), then naps between polls.
 */
import { performance } from 'node:perf_hooks';
import { SmoeError } from '../errors.ts';
import { AttachedMemories } from './attached-memories.ts';
import { emptyCounters } from './base-communicator.ts';
import type { TrafficCounters } from './communicator.ts';
import type { MpiLibrary, Region } from './mpi-library.ts';
import { MailTag, MpiMailbox, type Mail } from './mpi-mailbox.ts';
import { ownParameters, setParametersInEnvironment } from './mpi-parameters.ts';
import { MpiScratchPool } from './mpi-scratch-pool.ts';
import { removeSharedNames } from './mpi-shared-names.ts';

export type AbortCode = 'COMM_ABORTED' | 'COMM_MISMATCH';

/** Something that gets on whenever the rank looks after its communication. */
export interface Progressing {
  /** Does what can be done without blocking; true once complete. */
  advance(): boolean;
}

const spinMs = 1;
/** Naps grow with the time waited, up to this. Shorter than what a socket buffer holds at 10 Gbit/s takes to drain. */
const longestNapMs = 0.2;
/** Polls between two looks at the mail while polling eagerly. */
const pollsPerLook = 16;
/** A rank that communicates looks at its mail at least this often. */
const longestUnreadMs = 5;
/** How long an aborting rank sees to it that its peers are told. */
const tellingMs = 200;

export class MpiEndpoint {
  readonly library: MpiLibrary;
  readonly rank: number;
  readonly size: number;
  readonly counters: TrafficCounters = emptyCounters();
  readonly mailbox: MpiMailbox;
  readonly scratch: MpiScratchPool;
  /** Communicator of the collectives. */
  readonly comm: number;
  /** Where MPI says whether requests are complete. */
  readonly flag: Region;
  readonly memories: AttachedMemories<Region> = new AttachedMemories();
  /** This rank's memory in use; empty payloads need none. */
  memory: Region;
  /** Called for mail that is not about aborting; also while a collective blocks. */
  onMail: (mail: Mail) => void = () => undefined;
  /** Called with where rank 0 listens for heartbeats. */
  onHeartbeat: (body: Uint8Array) => void = () => undefined;
  /** Called when a peer says that the run is over. */
  onAbort: () => void = () => undefined;
  private readonly restoreSharedNames: () => void;
  private readonly inFlight: Progressing[] = [];
  private abortReason: SmoeError | undefined;
  private skippedLooks = 0;
  private latestLook = 0;
  private readonly napCell: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(4));

  /** Collective over all processes; the first of a process starts MPI. */
  constructor(library: MpiLibrary) {
    const { mpi, world } = library;
    this.library = library;
    this.flag = library.allocate(8);
    this.memory = library.allocate(0);
    const out = library.allocate(8);
    library.check(mpi.MPI_Initialized(out.address), 'starting MPI');
    if (out.integers[0] === 0) {
      setParametersInEnvironment(ownParameters());
      library.check(mpi.MPI_Init(0, 0), 'starting MPI');
      library.check(mpi.MPI_Comm_set_errhandler(world, library.errorsReturn), 'starting MPI');
    }
    library.check(mpi.MPI_Comm_rank(world, out.address), 'starting MPI');
    this.rank = out.integers[0];
    library.check(mpi.MPI_Comm_size(world, out.address), 'starting MPI');
    this.size = out.integers[0];
    this.comm = this.duplicate(world);
    this.mailbox = new MpiMailbox(library, this.duplicate(world));
    this.scratch = new MpiScratchPool(library);
    // Making the communicators has shown that every rank has mapped what it shares with others.
    this.restoreSharedNames = removeSharedNames();
  }

  /** True once every request started by this rank is complete. */
  get idle(): boolean {
    return this.inFlight.length === 0;
  }

  get aborted(): boolean {
    return this.abortReason !== undefined;
  }

  attach(buffer: SharedArrayBuffer): void {
    this.memories.add(buffer, this.library.regionOf(buffer));
    this.useMemory(buffer);
  }

  /** Sends from, and receives into, an attached memory from now on. */
  useMemory(buffer: SharedArrayBuffer): void {
    this.memory = this.memories.use(buffer, this.idle);
  }

  track(request: Progressing): void {
    this.inFlight.push(request);
  }

  /** Advances every request in flight, whichever communicator it belongs to. */
  progress(): void {
    this.throwIfAborted();
    const { inFlight } = this;
    let kept = 0;
    for (let i = 0; i < inFlight.length; i++) {
      const request = inFlight[i];
      if (!request.advance()) inFlight[kept++] = request;
    }
    inFlight.length = kept;
  }

  /** Makes progress on all requests and the mail until `condition` holds, and counts the time. */
  waitUntil(condition: () => boolean): void {
    const started = performance.now();
    for (let polls = 1; ; polls++) {
      this.progress();
      if (condition()) break;
      const waited = performance.now() - started;
      const eager = waited < spinMs;
      if (!eager || polls % pollsPerLook === 0) {
        this.attend();
        this.throwIfAborted();
      }
      if (!eager) Atomics.wait(this.napCell, 0, 0, Math.min(longestNapMs, waited / 20));
    }
    const ended = performance.now();
    this.counters.waitMs += ended - started;
    // Short waits alone would leave the mail to itself.
    if (ended - this.latestLook > longestUnreadMs) this.attend();
  }

  /** Looks at the mail; true if there was some. */
  attend(): boolean {
    this.latestLook = performance.now();
    const mails = this.mailbox.poll();
    for (const mail of mails) {
      if (mail.tag === MailTag.abort) this.learnAbort(mail.body);
      else if (mail.tag === MailTag.heartbeat) this.onHeartbeat(mail.body);
      else this.onMail(mail);
    }
    return mails.length > 0;
  }

  /** `attend` for those who call it very often. */
  attendSometimes(): void {
    if (++this.skippedLooks % pollsPerLook !== 0) return;
    this.attend();
    this.throwIfAborted();
  }

  /** Tells every rank to stop; their calls, and this rank's, throw `code` with `message` from now on. Never throws. */
  abort(code: AbortCode, message: string): void {
    if (this.abortReason !== undefined) return;
    this.abortReason = new SmoeError(code, message);
    const body = Buffer.from(JSON.stringify({ code, message }));
    try {
      for (let peer = 0; peer < this.size; peer++) {
        if (peer !== this.rank) this.mailbox.send(peer, MailTag.abort, body);
      }
      const end = performance.now() + tellingMs;
      while (!this.mailbox.settle() && performance.now() < end) Atomics.wait(this.napCell, 0, 0, 0.1);
    } catch {
      // The peers find out when this process ends.
    }
  }

  /** Aborts the run because its ranks disagree, and throws the reason all of them get. */
  refuse(message: string): never {
    // A peer that has been told to stop may already be somewhere else.
    this.attend();
    this.throwIfAborted();
    this.abort('COMM_MISMATCH', message);
    throw this.abortReason ?? new SmoeError('COMM_MISMATCH', message);
  }

  /** Returns once every message sent is out of this process. */
  settleMail(): void {
    while (!this.mailbox.settle()) Atomics.wait(this.napCell, 0, 0, 0.1);
  }

  /** Collective: shuts MPI down. */
  finalize(): void {
    this.restoreSharedNames();
    this.library.mpi.MPI_Finalize();
  }

  /** Ends every process of the run at once, this one included. */
  kill(): void {
    this.library.mpi.MPI_Abort(this.library.world, 1);
  }

  throwIfAborted(): void {
    if (this.abortReason !== undefined) throw new SmoeError(this.abortReason.code, this.abortReason.message);
  }

  private learnAbort(body: Uint8Array): void {
    const { code, message } = JSON.parse(Buffer.from(body).toString()) as { code: AbortCode; message: string };
    this.abortReason ??= new SmoeError(code, message);
    this.onAbort();
  }

  private duplicate(comm: number): number {
    const { library } = this;
    const out = library.allocate(8);
    library.check(library.mpi.MPI_Comm_dup(comm, out.address), 'making a communicator');
    const copy = handleIn(out);
    library.check(library.mpi.MPI_Comm_set_errhandler(copy, library.errorsReturn), 'making a communicator');
    return copy;
  }
}

/** The handle that MPI wrote at the start of a region. */
export function handleIn(region: Region): number {
  return Number(new BigUint64Array(region.bytes.buffer, 0, 1)[0]);
}
