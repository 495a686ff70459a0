import type { Cluster } from '../cluster/cluster.ts';

/** Devices `first .. end` that take turns on so many cores. */
interface CoreGroup {
  first: number;
  end: number;
  cores: number;
}

/**
 * When ranks are done that begin to compute at once and share cores, as an operating system shares them: n ranks that still compute on c
 * cores each go on at the rate min(1, c / n). Rank r lives on device r.
 */
export class CoreSharing {
  readonly #groups: CoreGroup[];

  constructor(cluster: Cluster, ranks: number) {
    const groups: CoreGroup[] = [];
    if (cluster.sharedCores !== undefined) groups.push({ first: 0, end: ranks, cores: cluster.sharedCores });
    let first = 0;
    for (const { devices, sharedCores } of cluster.nodes) {
      if (sharedCores !== undefined) groups.push({ first, end: first + devices, cores: sharedCores });
      first += devices;
    }
    this.#groups = groups
      .map(({ first: from, end, cores }) => ({ first: from, end: Math.min(end, ranks), cores }))
      .filter(({ first: from, end, cores }) => end - from > cores);
  }

  /**
   * @param alone [G] seconds that each rank would take alone
   * @returns [G] seconds until each is done; `alone` itself where no cores are shared
   */
  finish(alone: Float64Array): Float64Array {
    if (this.#groups.length === 0) return alone;
    const done = alone.slice();
    for (const { first, end, cores } of this.#groups) {
      const order = Array.from({ length: end - first }, (_, i) => first + i).sort((a, b) => alone[a]! - alone[b]!);
      let now = 0;
      let computed = 0;
      order.forEach((rank, i) => {
        const rate = Math.min(1, cores / (order.length - i));
        now += (alone[rank]! - computed) / rate;
        computed = alone[rank]!;
        done[rank] = now;
      });
    }
    return done;
  }
}
