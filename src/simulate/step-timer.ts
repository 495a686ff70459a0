import type { Cluster } from '../cluster/cluster.ts';
import type { Layout } from '../engine/api.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { ComputeClock, type ComputeName, type GroupTokens, type Work } from './compute-clock.ts';
import { CoreSharing } from './core-sharing.ts';
import type { Exchange, ExchangeName, LayerExchangeName } from './exchange.ts';
import type { LayerRouting } from './layer-routing.ts';
import { LinkClock } from './link-clock.ts';
import type { ModelShape } from './model-shape.ts';
import type { SimulatedStep } from './steps.ts';
import type { Traffic } from './traffic.ts';

/** A stretch of a step that every rank spends alike: computing until the slowest is done, or in a collective. */
export interface Segment {
  kind: 'compute' | 'exchange';
  name: ComputeName | ExchangeName;
  /** -1 around the layers. */
  layer: number;
  /** Seconds since the replay began. */
  start: number;
  seconds: number;
  /** 0 = whole batch, 1 and 2 = its halves when they overlap. */
  half: 0 | 1 | 2;
  /** [G] of a compute stage, until each rank is done; undefined for exchanges. */
  rankSeconds: Float64Array | undefined;
  /** Link that an exchange waits for. */
  link: string | undefined;
  bytes: number;
}

type TimedPiece = Omit<Segment, 'start' | 'half'>;

/** Seconds so far, of the slowest rank. */
export interface TimeTotals {
  /** All steps one after another. */
  seconds: number;
  computeSeconds: number;
  exchangeSeconds: Record<ExchangeName, number>;
  /** Part of all exchanges that bytes take, as against latency and messages. */
  byteSeconds: number;
  /** The same of dispatch and combine alone, and what it would be if all links carried alike. */
  expertByteSeconds: number;
  evenExpertByteSeconds: number;
  /** [L] */
  layerSeconds: Float64Array;
  /** [G] computing of each rank, waiting for others and for shared cores left out. */
  rankComputeSeconds: Float64Array;
  /** [link ends] seconds of exchanges that waited for this end. */
  linkWaitSeconds: Float64Array;
  /** [L][G] and [L][link ends] the same, of each layer. */
  layerRankSeconds: Float64Array[];
  layerLinkSeconds: Float64Array[];
}

/** What one step took, and what it waited for most. */
export interface StepTime {
  tokens: number;
  decodeTokens: number;
  seconds: number;
  /** Link end; -1 where nothing is sent. */
  busiestLink: number;
  busiestRank: number;
}

export interface TimerOptions {
  cluster: Cluster;
  shape: ModelShape;
  layout: Layout;
  trace: RoutingTrace;
  shuffles: boolean;
  onSegment?: (segment: Segment, step: number) => void;
  onWork?: (work: Work, rank: number, step: number) => void;
}

/**
 * Time of a replay on one cluster. A collective starts when the slowest rank arrives, and each waits for the one before. A layer that
 * runs as two halves computes one while the other communicates (schedule/drive.ts).
 */
export class StepTimer {
  readonly links: LinkClock;
  readonly totals: TimeTotals;
  readonly steps: StepTime[];
  readonly #compute: ComputeClock;
  readonly #cores: CoreSharing;
  readonly #options: TimerOptions;
  /** Of the layer under way, of each of its halves. */
  #halves: TimedPiece[][];
  #now: number;
  /** Of the step under way, [G] and [link ends]. */
  readonly #stepRankSeconds: Float64Array;
  readonly #stepLinkSeconds: Float64Array;

  constructor(options: TimerOptions) {
    const { cluster, shape, layout, trace, shuffles } = options;
    const ranks = layout.dataParallel * layout.tensorParallel;
    this.#options = options;
    this.links = new LinkClock(cluster, ranks);
    const onWork = options.onWork;
    const listener = onWork && ((work: Work, rank: number): void => onWork(work, rank, this.steps.length));
    this.#compute = new ComputeClock(cluster, shape, layout, trace, shuffles, listener);
    this.#cores = new CoreSharing(cluster, ranks);
    this.#halves = [];
    this.#now = 0;
    this.steps = [];
    const ends = this.links.ends.length;
    const { layers } = trace.model;
    this.#stepRankSeconds = new Float64Array(ranks);
    this.#stepLinkSeconds = new Float64Array(ends);
    this.totals = {
      seconds: 0,
      computeSeconds: 0,
      exchangeSeconds: {
        ...{
          activity: 0,
          attentionSum: 0,
          sizes: 0,
          capacity: 0,
          dispatch: 0,
          combine: 0,
          attentionGather: 0,
          sampling: 0,
        },
      },
      byteSeconds: 0,
      expertByteSeconds: 0,
      evenExpertByteSeconds: 0,
      layerSeconds: new Float64Array(layers),
      rankComputeSeconds: new Float64Array(ranks),
      linkWaitSeconds: new Float64Array(ends),
      layerRankSeconds: Array.from({ length: layers }, () => new Float64Array(ranks)),
      layerLinkSeconds: Array.from({ length: layers }, () => new Float64Array(ends)),
    };
  }

  beginStep(step: SimulatedStep, traffic: Traffic): void {
    this.#compute.beginStep(step);
    this.#spend(this.#exchanged(traffic.activity, -1));
  }

  /** What the whole step computes before the halves of a layer, if it has halves, go their ways. */
  beginLayer(layer: number, step: SimulatedStep): void {
    const begin = this.#now;
    this.#halves = [];
    this.#spend(this.#computed('attention', layer, this.#compute.attention(step)));
    this.totals.layerSeconds[layer]! += this.#now - begin;
  }

  /** The MoE part of a layer, or of one half of it. @param pregates whether its slices were predicted by the router */
  addHalf(layer: number, tokens: GroupTokens, traffic: Traffic, routing: LayerRouting, pregates: boolean): void {
    this.#addPieces(layer, this.#compute.shuffle(tokens, pregates), traffic, routing, false);
  }

  /** The MoE part of a layer that goes one-shot. */
  addOneShot(layer: number, traffic: Traffic, routing: LayerRouting): void {
    this.#addPieces(layer, new Float64Array(routing.ranks), traffic, routing, true);
  }

  #addPieces(layer: number, shuffle: Float64Array, traffic: Traffic, routing: LayerRouting, oneShot: boolean): void {
    const compute = this.#compute;
    const exchange = (name: LayerExchangeName): TimedPiece => this.#exchanged(traffic.layer[name], layer);
    this.#halves.push([
      this.#computed('shuffle', layer, shuffle),
      exchange('attentionSum'),
      this.#computed('router', layer, compute.router(routing, oneShot)),
      exchange('sizes'),
      exchange('capacity'),
      exchange('dispatch'),
      this.#computed('experts', layer, compute.experts(routing)),
      exchange('combine'),
      this.#computed('sum', layer, compute.sum(routing, oneShot)),
      exchange('attentionGather'),
    ]);
  }

  /** The halves take their pieces in turn; one computes and one communicates at a time. */
  endLayer(layer: number): void {
    const begin = this.#now;
    const free = { compute: begin, exchange: begin };
    const ready = this.#halves.map(() => begin);
    this.#halves[0]!.forEach((_, at) => {
      this.#halves.forEach((pieces, half) => {
        const piece = pieces[at]!;
        const start = Math.max(ready[half]!, free[piece.kind]);
        this.#tell(piece, start, this.#halves.length === 1 ? 0 : half === 0 ? 1 : 2);
        ready[half] = start + piece.seconds;
        free[piece.kind] = ready[half]!;
      });
    });
    this.#now = Math.max(...ready);
    this.totals.layerSeconds[layer]! += this.#now - begin;
  }

  /** Returns the seconds since the replay began. */
  endStep(step: SimulatedStep, traffic: Traffic): number {
    this.#spend(this.#computed('logits', -1, this.#compute.logits(step)));
    this.#spend(this.#exchanged(traffic.sampling, -1));
    this.steps.push({
      tokens: step.rows.length,
      decodeTokens: step.decodeTokens,
      seconds: this.#now - this.totals.seconds,
      busiestLink: largestOf(this.#stepLinkSeconds),
      busiestRank: Math.max(0, largestOf(this.#stepRankSeconds)),
    });
    this.#stepLinkSeconds.fill(0);
    this.#stepRankSeconds.fill(0);
    this.totals.seconds = this.#now;
    return this.#now;
  }

  #spend(piece: TimedPiece): void {
    this.#tell(piece, this.#now, 0);
    this.#now += piece.seconds;
  }

  #tell(piece: TimedPiece, start: number, half: Segment['half']): void {
    if (piece.seconds > 0) this.#options.onSegment?.({ ...piece, start, half }, this.steps.length);
  }

  #computed(name: ComputeName, layer: number, alone: Float64Array): TimedPiece {
    const rankSeconds = this.#cores.finish(alone);
    const seconds = Math.max(...rankSeconds);
    alone.forEach((own, rank) => {
      this.totals.rankComputeSeconds[rank]! += own;
      this.#stepRankSeconds[rank]! += own;
      if (layer >= 0) this.totals.layerRankSeconds[layer]![rank]! += own;
    });
    this.totals.computeSeconds += seconds;
    return { kind: 'compute', name, layer, seconds, rankSeconds, link: undefined, bytes: 0 };
  }

  #exchanged(exchange: Exchange, layer: number): TimedPiece {
    const { seconds, byteSeconds, evenByteSeconds, link } = this.links.time(exchange);
    if (link !== -1) {
      this.totals.exchangeSeconds[exchange.name] += seconds;
      this.totals.byteSeconds += byteSeconds;
      this.totals.linkWaitSeconds[link]! += seconds;
      this.#stepLinkSeconds[link]! += seconds;
      if (layer >= 0) this.totals.layerLinkSeconds[layer]![link]! += seconds;
      if (exchange.purpose === 'dispatch' || exchange.purpose === 'combine') {
        this.totals.expertByteSeconds += byteSeconds;
        this.totals.evenExpertByteSeconds += evenByteSeconds;
      }
    }
    const bytes = this.#options.onSegment === undefined ? 0 : exchange.bytes.reduce((sum, sent) => sum + sent, 0);
    return {
      ...{ kind: 'exchange', name: exchange.name, layer, seconds, bytes },
      ...{ rankSeconds: undefined, link: link === -1 ? undefined : this.links.ends[link]!.name },
    };
  }
}

/** Index of the largest value above 0, the first of equals; -1 when there is none. */
export function largestOf(values: Float64Array): number {
  let largest = -1;
  values.forEach((value, i) => {
    if (value > (largest < 0 ? 0 : values[largest]!)) largest = i;
  });
  return largest;
}
