import {
  type Cluster,
  type Link,
  linkClasses,
  type LinkClass,
  measuredSeconds,
  nodeOfDevices,
} from '../cluster/cluster.ts';
import type { Exchange } from './exchange.ts';

/** One direction of one place where bytes queue: a device's link inside its node, or a way out of a node. */
export interface LinkEnd {
  name: string;
  class: LinkClass;
  link: Link;
}

export interface ExchangeTime {
  seconds: number;
  /** Part of `seconds` that the bytes take. */
  byteSeconds: number;
  /** What the bytes would take if they were spread evenly over the ends of each link class. */
  evenByteSeconds: number;
  /** Index of the link that takes longest; -1 when nothing is sent. */
  link: number;
}

/**
 * Alpha-beta time of collectives on a cluster, or the time measured where there is one; rank r lives on device r. Every link end serialises what passes it, latencies are shared,
 * and an exchange is over when its slowest link end is.
 */
export class LinkClock {
  readonly ends: LinkEnd[];
  /** [ends] seconds of messages and bytes so far, without latency; bytes so far. */
  readonly busySeconds: Float64Array;
  readonly bytes: Float64Array;
  /** Per link class: bytes and messages so far. */
  readonly classBytes: Record<LinkClass, number>;
  readonly classMessages: Record<LinkClass, number>;
  readonly #ranks: number;
  readonly #node: Int32Array;
  /** [G] index of the outgoing end inside the node and towards other nodes; the incoming end is the next. */
  readonly #inside: Int32Array;
  readonly #between: Int32Array;
  readonly #endBytes: Float64Array;
  readonly #endMessages: Int32Array;
  readonly #endLatency: Float64Array;

  constructor(cluster: Cluster, ranks: number) {
    this.#ranks = ranks;
    this.#node = nodeOfDevices(cluster).subarray(0, ranks);
    this.#inside = new Int32Array(ranks);
    this.#between = new Int32Array(ranks);
    this.ends = [];
    const bothEnds = (place: string, linkClass: LinkClass, link: Link): number => {
      for (const direction of ['out', 'in']) this.ends.push({ name: `${place}, ${direction}`, class: linkClass, link });
      return this.ends.length - 2;
    };
    const portOfNode = new Map<number, number>();
    for (let rank = 0; rank < ranks; rank++) {
      const node = cluster.nodes[this.#node[rank]!]!;
      this.#inside[rank] = bothEnds(`device ${rank} inside ${node.name}`, 'insideNode', node.inside);
      const shared = node.betweenSharedBy === 'node' ? portOfNode.get(this.#node[rank]!) : undefined;
      const place = node.betweenSharedBy === 'node' ? `${node.name} to the network` : `device ${rank} to the network`;
      this.#between[rank] = shared ?? bothEnds(place, 'betweenNodes', node.between);
      portOfNode.set(this.#node[rank]!, this.#between[rank]!);
    }
    this.busySeconds = new Float64Array(this.ends.length);
    this.bytes = new Float64Array(this.ends.length);
    this.#endBytes = new Float64Array(this.ends.length);
    this.#endMessages = new Int32Array(this.ends.length);
    this.#endLatency = new Float64Array(this.ends.length);
    const zero = (): Record<LinkClass, number> =>
      Object.fromEntries(linkClasses.map((name) => [name, 0])) as Record<LinkClass, number>;
    this.classBytes = zero();
    this.classMessages = zero();
  }

  /** Adds an exchange to the counters and says how long it takes. */
  time(exchange: Exchange): ExchangeTime {
    this.#spread(exchange);
    const longest: ExchangeTime = { seconds: 0, byteSeconds: 0, evenByteSeconds: 0, link: -1 };
    this.ends.forEach(({ link }, end) => {
      const messages = this.#endMessages[end]!;
      if (messages === 0) return;
      const byteSeconds = this.#endBytes[end]! / link.bytesPerSecond;
      const busy = messages * link.messageSeconds + byteSeconds;
      this.busySeconds[end]! += busy;
      this.bytes[end]! += this.#endBytes[end]!;
      const { rounds } = exchange;
      const seconds =
        link.measured === undefined
          ? rounds * this.#endLatency[end]! + busy
          : rounds * measuredSeconds(link.measured, this.#endBytes[end]! / rounds);
      if (seconds > longest.seconds) Object.assign(longest, { seconds, byteSeconds, link: end });
    });
    longest.evenByteSeconds = Math.max(...linkClasses.map((linkClass) => this.#evenSeconds(linkClass)));
    return longest;
  }

  /** Every byte leaves one end and enters another, so half of what the ends count flows in either direction. */
  #evenSeconds(linkClass: LinkClass): number {
    let bytes = 0;
    let bytesPerSecond = 0;
    this.ends.forEach((end, i) => {
      if (end.class !== linkClass) return;
      bytes += this.#endBytes[i]!;
      bytesPerSecond += end.link.bytesPerSecond;
    });
    return bytes === 0 ? 0 : bytes / bytesPerSecond;
  }

  #spread({ bytes, messages }: Exchange): void {
    const ranks = this.#ranks;
    this.#endBytes.fill(0);
    this.#endMessages.fill(0);
    this.#endLatency.fill(0);
    for (let source = 0; source < ranks; source++) {
      for (let destination = 0; destination < ranks; destination++) {
        const pair = source * ranks + destination;
        if (messages[pair] === 0) continue;
        const same = this.#node[source] === this.#node[destination];
        const out = same ? this.#inside[source]! : this.#between[source]!;
        const into = (same ? this.#inside[destination]! : this.#between[destination]!) + 1;
        const latency = Math.max(this.ends[out]!.link.latencySeconds, this.ends[into]!.link.latencySeconds);
        for (const end of [out, into]) {
          this.#endBytes[end]! += bytes[pair]!;
          this.#endMessages[end]! += messages[pair]!;
          this.#endLatency[end] = Math.max(this.#endLatency[end]!, latency);
        }
        const linkClass = same ? 'insideNode' : 'betweenNodes';
        this.classBytes[linkClass] += bytes[pair]!;
        this.classMessages[linkClass] += messages[pair]!;
      }
    }
  }
}
