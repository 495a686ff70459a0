/**
 * Emulated links of the `threads` transport: what a network would make ranks wait, without one. Every node has one full-duplex
 * link. What its ranks send to other nodes leaves one message after another at the link's rate, arrives after the latency, and
 * enters the other node's link at that rate. Inside a node memory is shared and nothing is delayed. Only time is emulated.
 *
 * A message carries what the `mpi` transport sends over TCP on Ethernet: a header of its own and those of the frames. Every rank
 * hears from every other one in every collective, as there; an empty message is a header.
 *
 * Not emulated: the processor time of a network stack, congestion control, loss. Messages move by themselves while ranks compute.
 */
import { ExitStatus, SmoeError } from '../errors.ts';

export interface LinkSettings {
  /** Of a node's link, each way; null for no limit. */
  bytesPerSecond: number | null;
  /** From a message's leaving to its arrival, in milliseconds. */
  latencyMs: number;
  /** Consecutive ranks that form a node. */
  ranksPerNode: number;
}

/** Header of a message of the `mpi` transport. */
const messageHeaderBytes = 32;
/** TCP payload of a full Ethernet frame, and the bytes of headers beside it that count against a link's rate. */
const frameBytes = 1448;
const frameHeaderBytes = 66;

/** Bytes that a message of `payload` bytes takes of a link's rate. */
export function wireBytes(payload: number): number {
  const bytes = payload + messageHeaderBytes;
  return bytes + frameHeaderBytes * Math.ceil(bytes / frameBytes);
}

/** Throws COMM_LINK unless a link like that can be emulated. */
export function checkLink({ bytesPerSecond, latencyMs, ranksPerNode }: LinkSettings): void {
  const refuse = (what: string, hint: string): never => {
    throw new SmoeError('COMM_LINK', what, { hint, exitStatus: ExitStatus.usage });
  };
  if (bytesPerSecond !== null && !(bytesPerSecond > 0 && Number.isFinite(bytesPerSecond))) {
    refuse(`a link cannot carry ${bytesPerSecond} bytes per second`, 'give a positive rate, or null for no limit');
  }
  if (!(latencyMs >= 0 && Number.isFinite(latencyMs))) {
    refuse(`a link cannot have a latency of ${latencyMs} ms`, 'give 0 or more');
  }
  if (!Number.isInteger(ranksPerNode) || ranksPerNode < 1) {
    refuse(`a node cannot have ${ranksPerNode} ranks`, 'give a whole number, 1 or more');
  }
}

export interface LinkWiring {
  settings: LinkSettings;
  /** [nodes][out, in] when each direction is free again, in nanoseconds of the process's clock. */
  clocks: BigInt64Array<SharedArrayBuffer>;
}

export function wireLink(settings: LinkSettings, size: number): LinkWiring {
  const nodes = Math.ceil(size / settings.ranksPerNode);
  return { settings, clocks: new BigInt64Array(new SharedArrayBuffer(nodes * 2 * BigInt64Array.BYTES_PER_ELEMENT)) };
}

const nanosecondsPerMillisecond = 1e6;

/** The process's clock, the same in all its threads, in milliseconds. */
export function processClock(): number {
  return Number(process.hrtime.bigint()) / nanosecondsPerMillisecond;
}

/** One rank's view of its node's link. Times are milliseconds of `now`. */
export class LinkModel {
  readonly now: () => number;
  private readonly settings: LinkSettings;
  private readonly node: number;
  private readonly clocks: BigInt64Array<SharedArrayBuffer>;

  constructor({ settings, clocks }: LinkWiring, rank: number, now: () => number = processClock) {
    this.settings = settings;
    this.node = this.nodeOf(rank);
    this.clocks = clocks;
    this.now = now;
  }

  /** Whether a rank is reached over the link. */
  isOutside(rank: number): boolean {
    return this.nodeOf(rank) !== this.node;
  }

  /** Queues a message on the way out; returns when its first bit arrives at the other node. */
  send(payload: number): number {
    return this.reserve(2 * this.node, this.now(), payload) + this.settings.latencyMs;
  }

  /** Queues a message whose first bit has arrived on the way in; returns when its last bit has. */
  receive(arrival: number, payload: number): number {
    return this.reserve(2 * this.node + 1, arrival, payload) + this.milliseconds(payload);
  }

  private nodeOf(rank: number): number {
    return Math.floor(rank / this.settings.ranksPerNode);
  }

  private milliseconds(payload: number): number {
    const { bytesPerSecond } = this.settings;
    return bytesPerSecond === null ? 0 : (wireBytes(payload) / bytesPerSecond) * 1000;
  }

  /** Takes a direction of the link for a message, `from` at the earliest; returns when it has it. */
  private reserve(direction: number, from: number, payload: number): number {
    const { clocks } = this;
    const earliest = toNanoseconds(from);
    const duration = toNanoseconds(this.milliseconds(payload));
    for (;;) {
      const free = Atomics.load(clocks, direction);
      const start = free > earliest ? free : earliest;
      if (Atomics.compareExchange(clocks, direction, free, start + duration) === free) {
        return Number(start) / nanosecondsPerMillisecond;
      }
    }
  }
}

function toNanoseconds(milliseconds: number): bigint {
  return BigInt(Math.round(milliseconds * nanosecondsPerMillisecond));
}
