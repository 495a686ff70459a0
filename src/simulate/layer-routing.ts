import type { Ownership } from '../schedule/ownership.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';

/** One layer of one step, counted once and read by every schedule: which rows go from which rank to which. G = ranks. */
export class LayerRouting {
  readonly ranks: number;
  readonly #trace: RoutingTrace;
  readonly #ownership: Ownership;
  /** [G] tokens at home on each rank. */
  readonly homeRows: Int32Array;
  /** [G][G] tokens of a source that a destination serves, and their routed pairs; the diagonal is served at home. */
  readonly rows: Int32Array;
  readonly pairs: Int32Array;
  /** [G] routed pairs computed on each rank, and distinct experts that have any there. */
  readonly computedPairs: Int32Array;
  readonly activeExperts: Int32Array;
  /** Most rows any rank's own tokens have for one expert: the capacity of padded exchanges. */
  capacity: number;
  readonly #ids: Int32Array;
  readonly #serving: Int32Array;
  /** [G][N] rows per expert of each home's tokens. */
  readonly #load: Int32Array;
  /** [G][N] 1 where the rank computes rows of the expert. */
  readonly #active: Uint8Array;

  constructor(trace: RoutingTrace, ownership: Ownership) {
    const { ranks, experts } = ownership;
    this.ranks = ranks;
    this.#trace = trace;
    this.#ownership = ownership;
    this.homeRows = new Int32Array(ranks);
    this.rows = new Int32Array(ranks * ranks);
    this.pairs = new Int32Array(ranks * ranks);
    this.computedPairs = new Int32Array(ranks);
    this.activeExperts = new Int32Array(ranks);
    this.capacity = 0;
    this.#ids = new Int32Array(trace.model.topK);
    this.#serving = new Int32Array(trace.model.topK);
    this.#load = new Int32Array(ranks * experts);
    this.#active = new Uint8Array(ranks * experts);
  }

  /**
   * @param rows [n] trace rows of the step
   * @param homes [n] rank each of them lives on in this layer
   * @param usesCopies whether copies at home serve a token
   */
  count(layer: number, rows: Int32Array, homes: Int32Array, usesCopies: boolean = true): void {
    const { layers, topK, experts } = this.#trace.model;
    const ranks = this.ranks;
    const ids = this.#ids;
    const serving = this.#serving;
    this.#clear();
    for (let i = 0; i < rows.length; i++) {
      const home = homes[i]!;
      const from = (rows[i]! * layers + layer) * topK;
      for (let j = 0; j < topK; j++) ids[j] = this.#trace.experts[from + j]!;
      if (usesCopies) this.#ownership.servingRanks(layer, home, ids, 0, topK, serving);
      else this.#ownership.owningRanks(layer, ids, 0, topK, serving);
      this.homeRows[home]!++;
      for (let j = 0; j < topK; j++) {
        const rank = serving[j]!;
        const expert = ids[j]!;
        this.pairs[home * ranks + rank]!++;
        if (firstOf(serving, j)) this.rows[home * ranks + rank]!++;
        const load = ++this.#load[home * experts + expert]!;
        if (load > this.capacity) this.capacity = load;
        this.computedPairs[rank]!++;
        if (this.#active[rank * experts + expert] === 0) {
          this.#active[rank * experts + expert] = 1;
          this.activeExperts[rank]!++;
        }
      }
    }
  }

  /** Tokens that a rank computes something for, wherever they live. */
  servedRows(rank: number): number {
    let served = 0;
    for (let home = 0; home < this.ranks; home++) served += this.rows[home * this.ranks + rank]!;
    return served;
  }

  #clear(): void {
    for (const counts of [this.homeRows, this.rows, this.pairs, this.computedPairs, this.activeExperts]) counts.fill(0);
    this.#load.fill(0);
    this.#active.fill(0);
    this.capacity = 0;
  }
}

/** Whether no earlier entry names the same rank. */
function firstOf(serving: Int32Array, at: number): boolean {
  for (let i = 0; i < at; i++) if (serving[i] === serving[at]) return false;
  return true;
}
