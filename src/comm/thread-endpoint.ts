/**
 * One rank's end of the `threads` transport, shared by every communicator the rank takes part in: its doorbell,
 * its requests in flight, its ports to the peers and the peers' memories.
 */
import { performance } from 'node:perf_hooks';
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import { SmoeError } from '../errors.ts';
import { AttachedMemories } from './attached-memories.ts';
import { emptyCounters } from './base-communicator.ts';
import type { TrafficCounters } from './communicator.ts';
import { DoorbellWord, doorbellAt } from './control-area.ts';
import { LinkModel, type LinkWiring } from './link-model.ts';
import { abortGroup, ringDoorbell, throwIfAborted, type AbortCode } from './group-state.ts';

/** What a rank needs to reach its peers; made by the launcher, handed over at the start of the worker. */
export interface ThreadWiring {
  rank: number;
  size: number;
  group: Int32Array<SharedArrayBuffer>;
  /** Channel area of the root communicator. */
  channel: Int32Array<SharedArrayBuffer>;
  /** One port per peer; undefined for the rank itself. */
  ports: (MessagePort | undefined)[];
  /** Undefined where messages take no time but that of memory. */
  link: LinkWiring | undefined;
}

/** Something that gets on whenever the rank looks after its communication. */
export interface Progressing {
  /** Does what can be done without blocking; true once complete. */
  advance(): boolean;
}

/** Whole memories by rank. */
interface MemoryViews {
  bytes: readonly Uint8Array[];
  floats: readonly Float32Array[];
}

export class ThreadEndpoint {
  readonly rank: number;
  readonly size: number;
  readonly counters: TrafficCounters = emptyCounters();
  readonly memories: AttachedMemories<MemoryViews> = new AttachedMemories();
  /** The memories in use, whole, by rank; empty before `exchangeMemories`. */
  memoryBytes: readonly Uint8Array[] = [];
  memoryFloats: readonly Float32Array[] = [];
  readonly link: LinkModel | undefined;
  private readonly group: Int32Array<SharedArrayBuffer>;
  private readonly ports: (MessagePort | undefined)[];
  private readonly doorbell: number;
  private readonly inFlight: Progressing[] = [];
  /** Next time on the link's clock at which something arrives. */
  private wakeAt = Number.POSITIVE_INFINITY;

  constructor(wiring: ThreadWiring) {
    this.rank = wiring.rank;
    this.size = wiring.size;
    this.group = wiring.group;
    this.ports = wiring.ports;
    this.doorbell = doorbellAt(wiring.rank);
    this.link = wiring.link && new LinkModel(wiring.link, wiring.rank);
  }

  /** True once every request started by this rank is complete. */
  get idle(): boolean {
    return this.inFlight.length === 0;
  }

  track(request: Progressing): void {
    this.inFlight.push(request);
  }

  /** Advances every request in flight, whichever communicator it belongs to. */
  progress(): void {
    throwIfAborted(this.group);
    this.wakeAt = Number.POSITIVE_INFINITY;
    const { inFlight } = this;
    let kept = 0;
    for (let i = 0; i < inFlight.length; i++) {
      const request = inFlight[i];
      if (!request.advance()) inFlight[kept++] = request;
    }
    inFlight.length = kept;
  }

  /**
   * Sleeps until `condition` holds, making progress on all requests at every ring and arrival, and counts the time. The doorbell is
   * read before the condition, so a change between the two ends the sleep at once.
   */
  sleepUntil(condition: () => boolean): void {
    const { group, doorbell } = this;
    const bell = doorbell + DoorbellWord.bell;
    const sleeping = doorbell + DoorbellWord.sleeping;
    const started = performance.now();
    for (;;) {
      const rings = Atomics.load(group, bell);
      this.progress();
      if (condition()) break;
      Atomics.store(group, sleeping, 1);
      Atomics.wait(group, bell, rings, this.untilArrival());
      Atomics.store(group, sleeping, 0);
    }
    this.counters.waitMs += performance.now() - started;
  }

  /** Makes a sleep that follows end at a time of the link's clock. */
  wakeBy(time: number): void {
    if (time < this.wakeAt) this.wakeAt = time;
  }

  private untilArrival(): number {
    if (this.link === undefined || this.wakeAt === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    return Math.max(0, this.wakeAt - this.link.now());
  }

  ring(rank: number): void {
    ringDoorbell(this.group, rank);
  }

  /** Aborts the group; its ranks throw `code` with `message` from their next look at communication. */
  abort(code: AbortCode, message: string): void {
    abortGroup(this.group, this.size, code, message);
  }

  /** Aborts the group because its ranks disagree, and throws the reason all of them get. */
  refuse(message: string): never {
    this.abort('COMM_MISMATCH', message);
    throwIfAborted(this.group);
    throw new SmoeError('COMM_MISMATCH', message);
  }

  /** Sends shared memory to a peer and wakes it. */
  sendBuffer(rank: number, buffer: SharedArrayBuffer): void {
    this.ports[rank]?.postMessage(buffer);
    this.ring(rank);
  }

  /** Waits for the next shared memory a peer sent, without an event loop turn. */
  receiveBuffer(rank: number): SharedArrayBuffer {
    const port = this.ports[rank];
    if (port === undefined) throw new SmoeError('INTERNAL', `rank ${this.rank} has no port to rank ${rank}`);
    let received: { message: SharedArrayBuffer } | undefined;
    this.sleepUntil(() => (received = receiveMessageOnPort(port)) !== undefined);
    return received!.message;
  }

  /** Collective over the group: learns every rank's memory. */
  exchangeMemories(own: SharedArrayBuffer): void {
    for (let rank = 0; rank < this.size; rank++) {
      if (rank !== this.rank) this.sendBuffer(rank, own);
    }
    const buffers = Array.from({ length: this.size }, (_, rank) =>
      rank === this.rank ? own : this.receiveBuffer(rank),
    );
    this.memories.add(own, {
      bytes: buffers.map((buffer) => new Uint8Array(buffer)),
      floats: buffers.map((buffer) => new Float32Array(buffer)),
    });
    this.useMemory(own);
  }

  /** Reads and writes the memories that were exchanged together with `own` from now on. */
  useMemory(own: SharedArrayBuffer): void {
    const { bytes, floats } = this.memories.use(own, this.idle);
    this.memoryBytes = bytes;
    this.memoryFloats = floats;
  }
}
