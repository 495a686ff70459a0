import type { LayerRouting } from './layer-routing.ts';

export interface RoutingFigures {
  localActivationRate: number;
  remoteDevicesPerToken: number;
  /** Largest / mean expert rows computed per rank. */
  loadImbalance: number;
  /** Share of tokens whose home serves at least one of their experts. */
  recall: number;
}

/** The figures of a run report, added up over steps; one layer. */
export class RoutingTally {
  #tokens: number;
  #pairs: number;
  #localPairs: number;
  #remote: number;
  #homeNeeded: number;
  readonly #computed: Float64Array;

  constructor(ranks: number) {
    this.#tokens = 0;
    this.#pairs = 0;
    this.#localPairs = 0;
    this.#remote = 0;
    this.#homeNeeded = 0;
    this.#computed = new Float64Array(ranks);
  }

  add({ ranks, homeRows, rows, pairs, computedPairs }: LayerRouting): void {
    for (let source = 0; source < ranks; source++) {
      this.#tokens += homeRows[source]!;
      this.#computed[source]! += computedPairs[source]!;
      for (let destination = 0; destination < ranks; destination++) {
        const pair = source * ranks + destination;
        this.#pairs += pairs[pair]!;
        if (source === destination) {
          this.#localPairs += pairs[pair]!;
          this.#homeNeeded += rows[pair]!;
        } else this.#remote += rows[pair]!;
      }
    }
  }

  figures(): RoutingFigures {
    const mean = this.#computed.reduce((sum, rows) => sum + rows, 0) / this.#computed.length;
    return {
      localActivationRate: this.#localPairs / this.#pairs,
      remoteDevicesPerToken: this.#remote / this.#tokens,
      loadImbalance: Math.max(...this.#computed) / mean,
      recall: this.#homeNeeded / this.#tokens,
    };
  }
}

export function meanFigures(layers: RoutingFigures[]): RoutingFigures {
  const mean = (field: keyof RoutingFigures): number =>
    layers.reduce((sum, figures) => sum + figures[field], 0) / layers.length;
  return {
    localActivationRate: mean('localActivationRate'),
    remoteDevicesPerToken: mean('remoteDevicesPerToken'),
    loadImbalance: mean('loadImbalance'),
    recall: mean('recall'),
  };
}
