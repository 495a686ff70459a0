import { type Cluster, type DeviceRates, nodeOfDevices } from '../cluster/cluster.ts';
import type { Layout } from '../engine/api.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { LayerRouting } from './layer-routing.ts';
import { attentionElements, expertBytes, localKeyValueHeads, type ModelShape } from './model-shape.ts';
import type { SimulatedStep } from './steps.ts';

/** What ranks compute between collectives, in order; `logits` once a step. */
export type ComputeName = 'attention' | 'shuffle' | 'router' | 'experts' | 'sum' | 'logits';

/** What one rank has to do in a stage; what is not said is 0. */
export interface Work {
  /** Operations of matrix products; of attention's scores and values; of experts. */
  flops?: number;
  attentionFlops?: number;
  expertFlops?: number;
  /** Bytes of memory read and written. */
  bytes?: number;
  layers?: number;
  /** Tokens on their own rank, and tokens whose rank is predicted. */
  tokens?: number;
  predicted?: number;
}

/** Roofline: the longer of arithmetic and memory traffic; bookkeeping comes on top. */
export function workSeconds(work: Work, rates: DeviceRates): number {
  const { flops = 0, attentionFlops = 0, expertFlops = 0, bytes = 0, layers = 0, tokens = 0, predicted = 0 } = work;
  const arithmetic =
    flops / rates.flopsPerSecond +
    attentionFlops / rates.attentionFlopsPerSecond +
    expertFlops / rates.expertFlopsPerSecond;
  const bookkeeping = layers * rates.layerSeconds + tokens * rates.tokenSeconds + predicted * rates.predictSeconds;
  return Math.max(arithmetic, bytes / rates.memoryBytesPerSecond) + bookkeeping;
}

/** Tokens of the data-parallel groups in one step, or in one of its halves. */
export type GroupTokens = Pick<SimulatedStep, 'groupTokens'>;

/** Computing times [G], in seconds, as if each rank's device were alone. Rank r lives on device r. */
export class ComputeClock {
  readonly #shape: ModelShape;
  readonly #layout: Layout;
  readonly #trace: RoutingTrace;
  readonly #devices: DeviceRates[];
  readonly #shuffles: boolean;
  readonly #onWork: ((work: Work, rank: number) => void) | undefined;
  /** Per group: sum over tokens of the positions they attend to, and cached positions read. */
  readonly #attended: Float64Array;
  readonly #cached: Float64Array;

  /**
   * @param shuffles whether rows are permuted around the attention collectives
   * @param onWork told of all work, for fitting rates to measured times
   */
  constructor(
    cluster: Cluster,
    shape: ModelShape,
    layout: Layout,
    trace: RoutingTrace,
    shuffles: boolean,
    onWork?: (work: Work, rank: number) => void,
  ) {
    const nodes = nodeOfDevices(cluster);
    const ranks = layout.dataParallel * layout.tensorParallel;
    this.#shape = shape;
    this.#layout = layout;
    this.#trace = trace;
    this.#devices = Array.from({ length: ranks }, (_, rank) => cluster.nodes[nodes[rank]!]!.device);
    this.#shuffles = shuffles && layout.tensorParallel > 1;
    this.#onWork = onWork;
    this.#attended = new Float64Array(layout.dataParallel);
    this.#cached = new Float64Array(layout.dataParallel);
  }

  beginStep({ rows, groupTokens }: SimulatedStep): void {
    const { request, position } = this.#trace;
    this.#attended.fill(0);
    this.#cached.fill(0);
    let at = 0;
    groupTokens.forEach((tokens, group) => {
      for (const end = at + tokens; at < end; at++) {
        const context = position[rows[at]!]! + 1;
        this.#attended[group]! += context;
        const lastOfSequence = at + 1 === end || request[rows[at + 1]!] !== request[rows[at]!];
        if (lastOfSequence) this.#cached[group]! += context;
      }
    });
  }

  /** Norm, projections, attention and its output projection, and what a layer takes besides. */
  attention({ groupTokens }: GroupTokens): Float64Array {
    const { hiddenSize, heads, headDimension, activationBytes, weightBytes } = this.#shape;
    const { tensorParallel } = this.#layout;
    const elements = attentionElements(this.#shape, tensorParallel);
    const cacheRow = 2 * localKeyValueHeads(this.#shape, tensorParallel) * headDimension * activationBytes;
    return this.#times((rank) => {
      const group = Math.floor(rank / tensorParallel);
      const tokens = groupTokens[group]!;
      return {
        layers: 1,
        flops: 2 * tokens * elements,
        attentionFlops: 4 * this.#attended[group]! * (heads / tensorParallel) * headDimension,
        bytes:
          (tokens === 0 ? 0 : elements * weightBytes) +
          this.#cached[group]! * cacheRow +
          4 * tokens * hiddenSize * activationBytes,
      };
    });
  }

  /** Predicting with the router, at home, and permuting what this rank's heads give before their output projection. */
  shuffle({ groupTokens }: GroupTokens, pregates: boolean): Float64Array {
    const { hiddenSize, experts, heads, headDimension, activationBytes, weightBytes } = this.#shape;
    const { tensorParallel } = this.#layout;
    const router = pregates ? experts * hiddenSize : 0;
    const contextWidth = (heads / tensorParallel) * headDimension;
    return this.#times((rank) => {
      const tokens = this.#shuffles ? groupTokens[Math.floor(rank / tensorParallel)]! : 0;
      return {
        predicted: tokens,
        flops: (2 * tokens * router) / tensorParallel,
        bytes: tokens === 0 ? 0 : router * weightBytes + 2 * tokens * contextWidth * activationBytes,
      };
    });
  }

  /** Norm and router over the rank's own rows, or all of them when the layer goes one-shot, and packing what is sent. */
  router(routing: LayerRouting, oneShot: boolean): Float64Array {
    const { hiddenSize, experts, activationBytes, weightBytes } = this.#shape;
    return this.#times((rank) => {
      const own = oneShot ? allTokens(routing) : routing.homeRows[rank]!;
      const sent = oneShot ? routing.servedRows(rank) : servedElsewhere(routing, rank);
      return {
        tokens: own,
        flops: 2 * own * hiddenSize * experts,
        bytes:
          (own === 0 ? 0 : hiddenSize * experts * weightBytes) + (3 * own + 2 * sent) * hiddenSize * activationBytes,
      };
    });
  }

  /** Experts over own and received rows. */
  experts(routing: LayerRouting): Float64Array {
    const { hiddenSize, expertWidth, activationBytes } = this.#shape;
    return this.#times((rank) => ({
      expertFlops: 6 * routing.computedPairs[rank]! * hiddenSize * expertWidth,
      bytes:
        routing.activeExperts[rank]! * expertBytes(this.#shape) +
        routing.computedPairs[rank]! * (4 * hiddenSize + 4 * expertWidth) * activationBytes,
    }));
  }

  /** Adding the partial sums that came back, or of all tokens when the layer goes one-shot. */
  sum(routing: LayerRouting, oneShot: boolean): Float64Array {
    const { hiddenSize, activationBytes } = this.#shape;
    return this.#times((rank) => {
      const back = oneShot
        ? allTokens(routing) * routing.ranks
        : routing.homeRows[rank]! + servedElsewhere(routing, rank);
      return { bytes: 3 * back * hiddenSize * activationBytes };
    });
  }

  /** The rank's share of the vocabulary for the rows whose next token is chosen. */
  logits({ sampled }: SimulatedStep): Float64Array {
    const { hiddenSize, vocabularySize, weightBytes } = this.#shape;
    const { tensorParallel } = this.#layout;
    const elements = (hiddenSize * vocabularySize) / tensorParallel;
    return this.#times((rank) => {
      const rows = sampled[Math.floor(rank / tensorParallel)]!;
      return { flops: 2 * rows * elements, bytes: rows === 0 ? 0 : elements * weightBytes };
    });
  }

  #times(workOf: (rank: number) => Work): Float64Array {
    return Float64Array.from(this.#devices, (rates, rank) => {
      const work = workOf(rank);
      this.#onWork?.(work, rank);
      return workSeconds(work, rates);
    });
  }
}

function allTokens({ homeRows }: LayerRouting): number {
  return homeRows.reduce((sum, rows) => sum + rows, 0);
}

/** Rows that a rank's tokens are served with by other ranks. */
function servedElsewhere({ ranks, rows }: LayerRouting, rank: number): number {
  let served = 0;
  for (let other = 0; other < ranks; other++) if (other !== rank) served += rows[rank * ranks + other]!;
  return served;
}
