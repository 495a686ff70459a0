import type { Plan } from '../plan/plan.ts';

/**
 * A plan seen by ranks: G ranks, each owning a contiguous block of P / G plan devices. P / G is a power of two, so
 * that a rank's block is a subtree of the summation tree over devices (docs/bit-identity.md).
 */
export class Ownership {
  readonly ranks: number;
  readonly devices: number;
  readonly devicesPerRank: number;
  readonly experts: number;
  /** [L][N] device that owns the expert. */
  readonly ownerDevice: Uint16Array;
  /** [L][G] experts owned by the rank, ascending. */
  readonly ownedExperts: number[][][];
  /** [L][G] experts held as copies (and not owned), ascending. */
  readonly copiedExperts: number[][][];
  /** [L][G][N] 1 where the rank holds a copy it does not own; undefined without replicas. */
  readonly #copies: Uint8Array | undefined;

  constructor(plan: Plan, ranks: number) {
    this.ranks = ranks;
    this.devices = plan.devices;
    this.devicesPerRank = plan.devices / ranks;
    this.experts = plan.experts;
    this.ownerDevice = plan.expertOwner;
    this.ownedExperts = [];
    this.copiedExperts = [];
    const hasReplicas = plan.replicas.some((layer) => layer.some((copies) => copies.length > 0));
    this.#copies = hasReplicas ? new Uint8Array(plan.layers * ranks * plan.experts) : undefined;
    for (let layer = 0; layer < plan.layers; layer++) {
      const owned = Array.from({ length: ranks }, (): number[] => []);
      const copied = Array.from({ length: ranks }, () => new Set<number>());
      for (let expert = 0; expert < plan.experts; expert++) owned[this.ownerRank(layer, expert)]!.push(expert);
      for (let device = 0; device < plan.devices; device++) {
        const rank = this.rankOfDevice(device);
        for (const expert of plan.replicas[layer]?.[device] ?? []) {
          if (this.ownerRank(layer, expert) === rank) continue;
          copied[rank]!.add(expert);
          this.#copies![(layer * ranks + rank) * plan.experts + expert] = 1;
        }
      }
      this.ownedExperts.push(owned);
      this.copiedExperts.push(copied.map((set) => [...set].sort((a, b) => a - b)));
    }
  }

  rankOfDevice(device: number): number {
    return Math.floor(device / this.devicesPerRank);
  }

  device(layer: number, expert: number): number {
    return this.ownerDevice[layer * this.experts + expert]!;
  }

  ownerRank(layer: number, expert: number): number {
    return this.rankOfDevice(this.device(layer, expert));
  }

  /** Whether any rank holds copies. */
  get copies(): boolean {
    return this.#copies !== undefined;
  }

  /** Most experts any rank owns in any layer. */
  largestOwned(): number {
    return Math.max(...this.ownedExperts.flatMap((layer) => layer.map((experts) => experts.length)));
  }

  /** The rank that owns each of a token's k experts; copies play no part. @param serving [k] output */
  owningRanks(layer: number, experts: Int32Array, offset: number, topK: number, serving: Int32Array): void {
    for (let i = 0; i < topK; i++) serving[i] = this.ownerRank(layer, experts[offset + i]!);
  }

  /**
   * The rank that computes each of a token's k experts. A remote rank is skipped only when every expert it owns that the
   * token needs has a copy at home, else it serves its whole group (docs/method.md, replicas).
   *
   * @param experts ids of the token's k experts start at `offset`
   * @param serving [k] output
   */
  servingRanks(
    layer: number,
    home: number,
    experts: Int32Array,
    offset: number,
    topK: number,
    serving: Int32Array,
  ): void {
    this.owningRanks(layer, experts, offset, topK, serving);
    const copies = this.#copies;
    if (copies === undefined) return;
    const held = (layer * this.ranks + home) * this.experts;
    for (let i = 0; i < topK; i++) {
      const owner = this.ownerRank(layer, experts[offset + i]!);
      if (owner === home) continue;
      let covered = true;
      for (let j = 0; j < topK && covered; j++) {
        const expert = experts[offset + j]!;
        covered = this.ownerRank(layer, expert) !== owner || copies[held + expert] === 1;
      }
      if (covered) serving[i] = home;
    }
  }
}
