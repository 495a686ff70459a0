import type { Ownership } from './ownership.ts';

/** Counters of one layer on one rank; `statisticFields` numbers per layer in `RoutingObserver.statistics`. */
export const statisticFields = ['tokens', 'pairs', 'localPairs', 'remoteRanks', 'homeNeeded', 'computedRows'] as const;
export type StatisticField = (typeof statisticFields)[number];
const field = Object.fromEntries(statisticFields.map((name, i) => [name, i])) as Record<StatisticField, number>;

/** Routing one rank saw in one layer of one step: n of its home tokens. */
export interface RoutingChunk {
  layer: number;
  step: number;
  /** [n] row of each token in the run's record. */
  rows: Int32Array;
  /** [n][k] */
  experts: Uint16Array;
  /** [n][k] */
  weights: Float32Array;
}

/** Sees every routing decision made on this rank: counts for the report, and the record when one is kept. */
export class RoutingObserver {
  /** [L][statisticFields] */
  readonly statistics: Float64Array;
  readonly #ownership: Ownership;
  readonly #topK: number;
  readonly #serving: Int32Array;
  readonly #seen: Uint8Array;
  readonly #rank: number;
  /** Filled while recording. */
  chunks: RoutingChunk[] | undefined;
  step: number;

  constructor(ownership: Ownership, rank: number, layers: number, topK: number) {
    this.statistics = new Float64Array(layers * statisticFields.length);
    this.#ownership = ownership;
    this.#rank = rank;
    this.#topK = topK;
    this.#serving = new Int32Array(topK);
    this.#seen = new Uint8Array(ownership.ranks);
    this.chunks = undefined;
    this.step = 0;
  }

  reset(recording: boolean): void {
    this.statistics.fill(0);
    this.chunks = recording ? [] : undefined;
    this.step = 0;
  }

  /**
   * @param ids, weights views over the rank's memory; the rows' k entries start at `idsOffset`, `weightsOffset` (elements)
   * @param recordRows row of each of this rank's tokens in the record; asked for while recording
   * @param usesCopies whether copies on this rank serve its tokens
   */
  observe(
    layer: number,
    rows: number,
    ids: Int32Array,
    idsOffset: number,
    weights: Float32Array,
    weightsOffset: number,
    recordRows: () => Int32Array,
    usesCopies: boolean = true,
  ): void {
    const topK = this.#topK;
    const home = this.#rank;
    const base = layer * statisticFields.length;
    const serving = this.#serving;
    const seen = this.#seen;
    let localPairs = 0;
    let remoteRanks = 0;
    let homeNeeded = 0;
    for (let row = 0; row < rows; row++) {
      const offset = idsOffset + row * topK;
      if (usesCopies) this.#ownership.servingRanks(layer, home, ids, offset, topK, serving);
      else this.#ownership.owningRanks(layer, ids, offset, topK, serving);
      seen.fill(0);
      for (let i = 0; i < topK; i++) {
        const rank = serving[i]!;
        if (rank === home) localPairs++;
        if (seen[rank] === 0) {
          seen[rank] = 1;
          if (rank === home) homeNeeded++;
          else remoteRanks++;
        }
      }
    }
    this.statistics[base + field.tokens]! += rows;
    this.statistics[base + field.pairs]! += rows * topK;
    this.statistics[base + field.localPairs]! += localPairs;
    this.statistics[base + field.remoteRanks]! += remoteRanks;
    this.statistics[base + field.homeNeeded]! += homeNeeded;
    this.chunks?.push({
      layer,
      step: this.step,
      rows: recordRows().slice(),
      experts: Uint16Array.from(ids.subarray(idsOffset, idsOffset + rows * topK)),
      weights: Float32Array.from(weights.subarray(weightsOffset, weightsOffset + rows * topK)),
    });
  }

  /** (row, expert) pairs this rank's experts computed. */
  computed(layer: number, pairs: number): void {
    this.statistics[layer * statisticFields.length + field.computedRows]! += pairs;
  }
}
