import { assertEnoughDevices, assertMemoryHolds } from '../cluster/limits.ts';
import type { Cluster, LinkClass } from '../cluster/cluster.ts';
import type { Purpose } from '../comm/communicator.ts';
import { fewestMicrobatchedTokens, type Layout } from '../engine/api.ts';
import { ExitStatus, SmoeError } from '../errors.ts';
import { assertPlanFits } from '../plan/fit.ts';
import type { Plan } from '../plan/plan.ts';
import { Ownership } from '../schedule/ownership.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { Work } from './compute-clock.ts';
import { layerExchangeNames } from './exchange.ts';
import { contiguousHomes, type HomeChooser, type HomeSource, predictedHomes } from './homes.ts';
import { LayerRouting } from './layer-routing.ts';
import { expertBytes, type ModelShape, sharedWeightBytes } from './model-shape.ts';
import { type Note, notesOf } from './notes.ts';
import { placeRequests } from './placement.ts';
import type { SimulatedPredictorName } from './predictors.ts';
import { type Percentiles, percentiles, RequestClock } from './request-clock.ts';
import { meanFigures, type RoutingFigures, RoutingTally } from './routing-figures.ts';
import { largestOf, type Segment, StepTimer } from './step-timer.ts';
import {
  assertSteps,
  composeSteps,
  halvesOf,
  type SimulatedStep,
  type StepComposition,
  type TokenBatch,
} from './steps.ts';
import { addExchange, emptyTotals, type TrafficTotals } from './traffic-totals.ts';
import { type SimulatedScheduleName, Traffic } from './traffic.ts';

export interface SimulationOptions {
  trace: RoutingTrace;
  shape: ModelShape;
  plan: Plan;
  /** What reports call the plan; its solver when not given. */
  planName?: string;
  schedule: SimulatedScheduleName;
  /** Of `speculative`. */
  predictor: SimulatedPredictorName;
  layout: Layout;
  composition: StepComposition;
  /** The replay is timed on each of them. */
  clusters: Cluster[];
  /** Run every layer as two halves that take turns, in steps of enough tokens. */
  overlap: boolean;
  /** What is enough; default as the engine's. */
  microbatchTokens?: number;
  /** Bytes of a compact row over a plain one's (docs/compact-rows.md); `speculative` sends those when given. */
  compactShare?: number;
  /** Steps of at most so many tokens go one-shot (docs/one-shot.md) under `dedup` and `speculative`, with one data-parallel group. */
  oneShotTokens?: number;
  /** [L] for predictors that run the router; see ApproximatePregate. */
  pregateOverlap?: Float64Array;
  /** Homes and steps of a recorded run, instead of chosen ones. */
  recorded?: { homes: HomeChooser; steps: SimulatedStep[] };
  /** Of the first cluster. */
  onSegment?: (segment: Segment, step: number) => void;
  /** Told of everything ranks compute, of the first cluster. */
  onWork?: (work: Work, rank: number, step: number) => void;
}

/** What a stretch of time waited for longest. */
export interface Busiest {
  /** Link end; null where nothing is sent. */
  busiestLink: string | null;
  /** Rank that computed longest. */
  busiestRank: number;
}

export interface SimulatedLayer extends RoutingFigures, Busiest {
  milliseconds: number;
  bytes: Record<Purpose, number>;
  messages: number;
}

export interface SimulatedStepTime extends Busiest {
  tokens: number;
  decodeTokens: number;
  milliseconds: number;
}

/** What one schedule would do on one cluster; field names as in `smoe compare --json`. */
export interface SimulationResult extends RoutingFigures {
  name: SimulatedScheduleName;
  plan: string;
  predictor: SimulatedPredictorName | null;
  homes: HomeSource;
  cluster: string;
  bytes: Record<Purpose, number> & { total: number };
  messages: number;
  bytesByLink: Record<LinkClass, number>;
  messagesByLink: Record<LinkClass, number>;
  steps: number;
  stepMs: Percentiles;
  ttftMs: Percentiles;
  tpotMs: Percentiles;
  e2eMs: Percentiles;
  /** Replayed tokens, prompts included, over the time of all steps. */
  tokensPerSecond: number;
  totalMs: number;
  /** Slowest rank's computing and the collectives, as if nothing overlapped. */
  computeMs: number;
  communicationMs: number;
  /** Share of time in dispatch and combine, and with the attention collectives: what better placement and shuffling can touch. */
  expertExchangeShare: number;
  communicationShare: number;
  /** Time that dispatch and combine wait for their busiest link / if all links of its class carried alike: what balancing them could save. */
  linkImbalance: number;
  /** Steps whose layers ran as two halves. */
  overlappedSteps: number;
  layers: SimulatedLayer[];
  stepTimes: SimulatedStepTime[];
  /** Link end that collectives waited for longest; null on one rank. */
  busiestLink: { name: string; class: LinkClass; waitedMs: number; busyMs: number; bytes: number } | null;
  busiestRank: { rank: number; computeMs: number; overMean: number };
  notes: Note[];
}

/** Replays a trace under one plan and schedule; one result per cluster. Throws what is refused before replaying anything. */
export function simulate(options: SimulationOptions): SimulationResult[] {
  const { trace, shape, plan, schedule, layout, clusters, composition } = options;
  assertInputsFit(options);
  const ranks = layout.dataParallel * layout.tensorParallel;
  const ownership = new Ownership(plan, ranks);
  for (const cluster of clusters) {
    assertEnoughDevices(cluster, ranks);
    assertMemoryHolds(cluster, neededMemory(shape, layout, ownership));
  }
  const { dataParallel } = layout;
  const placement = placeRequests(trace, plan, schedule, dataParallel);
  const steps = options.recorded?.steps ?? composeSteps(trace, placement, dataParallel, composition);
  assertSteps(steps);
  const recorded = options.recorded?.homes;
  const homes = recorded === undefined ? homesOf(options, steps) : [recorded, recorded];
  return new Replay(options, ownership, homes).run(steps);
}

/** One per half of a step, as the engine keeps what it predicts with per half. */
function homesOf(options: SimulationOptions, steps: SimulatedStep[]): HomeChooser[] {
  return [chooserOf(options, steps), chooserOf(options, steps)];
}

function chooserOf(options: SimulationOptions, steps: SimulatedStep[]): HomeChooser {
  if (options.schedule !== 'speculative') return contiguousHomes(options.layout);
  const stepTokens = steps.reduce((most, { groupTokens }) => Math.max(most, ...groupTokens), 0);
  return predictedHomes({ ...options, stepTokens });
}

/** Throws PLAN_* and SIMULATE_* errors unless trace, model, plan and layout belong together. */
function assertInputsFit({ trace, shape, plan, layout }: SimulationOptions): void {
  const { model } = trace;
  for (const field of ['layers', 'experts', 'topK'] as const) {
    if (shape[field] === model[field]) continue;
    throw new SmoeError(
      'SIMULATE_OTHER_MODEL',
      `${field} is ${shape[field]} in the model, ${model[field]} in the trace`,
      {
        hint: 'name the model the trace was recorded from',
        exitStatus: ExitStatus.usage,
      },
    );
  }
  const { dataParallel, tensorParallel } = layout;
  if (shape.heads % tensorParallel !== 0) {
    throw new SmoeError(
      'LAYOUT_UNSUPPORTED',
      `tp = ${tensorParallel} does not divide the model's ${shape.heads} attention heads`,
      {
        exitStatus: ExitStatus.usage,
      },
    );
  }
  const { fingerprint: modelFingerprint, layers, experts, topK } = model;
  // A trace without token ids knows no vocabulary, nor does a plan that was solved from one.
  const vocabularySize = plan.vocabularySize === 0 ? 0 : model.vocabularySize || plan.vocabularySize;
  assertPlanFits(plan, {
    modelFingerprint,
    layers,
    experts,
    topK,
    vocabularySize,
    ranks: dataParallel * tensorParallel,
  });
}

/** [G] bytes of weights that each rank keeps. */
function neededMemory(shape: ModelShape, { tensorParallel }: Layout, ownership: Ownership): Float64Array {
  return Float64Array.from({ length: ownership.ranks }, (_, rank) => {
    let held = 0;
    for (let layer = 0; layer < shape.layers; layer++) {
      held += ownership.ownedExperts[layer]![rank]!.length + ownership.copiedExperts[layer]![rank]!.length;
    }
    return sharedWeightBytes(shape, tensorParallel) + held * expertBytes(shape);
  });
}

/** As the engine's: every rank must have every row. */
function goesOneShot(schedule: SimulatedScheduleName, { dataParallel, tensorParallel }: Layout): boolean {
  return (schedule === 'dedup' || schedule === 'speculative') && dataParallel === 1 && tensorParallel > 1;
}

class Replay {
  readonly #options: SimulationOptions;
  readonly #homes: HomeChooser[];
  readonly #traffic: Traffic;
  readonly #routing: LayerRouting;
  readonly #timers: StepTimer[];
  readonly #requests: RequestClock[];
  readonly #totals: TrafficTotals;
  readonly #layerTotals: TrafficTotals[];
  readonly #tallies: RoutingTally[];
  readonly #slicesByIndex: HomeChooser;
  readonly #oneShotTokens: number;
  #overlappedSteps: number;

  constructor(options: SimulationOptions, ownership: Ownership, homes: HomeChooser[]) {
    const { trace, shape, schedule, layout, clusters, onSegment, onWork } = options;
    const { layers } = trace.model;
    this.#options = options;
    this.#homes = homes;
    const rowBytes = shape.hiddenSize * shape.activationBytes;
    const share = schedule === 'speculative' ? (options.compactShare ?? 1) : 1;
    this.#traffic = new Traffic(schedule, layout, ownership, Math.round(rowBytes * share));
    this.#routing = new LayerRouting(trace, ownership);
    this.#timers = clusters.map((cluster, i) => {
      const shuffles = schedule === 'speculative';
      const listeners = i === 0 ? { ...(onSegment && { onSegment }), ...(onWork && { onWork }) } : {};
      return new StepTimer({ cluster, shape, layout, trace, shuffles, ...listeners });
    });
    this.#requests = clusters.map(() => new RequestClock(trace, options.composition.phases));
    this.#totals = emptyTotals();
    this.#layerTotals = Array.from({ length: layers }, emptyTotals);
    this.#tallies = Array.from({ length: layers }, () => new RoutingTally(ownership.ranks));
    this.#slicesByIndex = contiguousHomes(layout);
    this.#oneShotTokens = goesOneShot(schedule, layout) ? (options.oneShotTokens ?? 0) : 0;
    this.#overlappedSteps = 0;
  }

  run(steps: SimulatedStep[]): SimulationResult[] {
    for (const step of steps) this.#step(step);
    // Groups learn that all of them are done.
    this.#traffic.countStep(new Int32Array(this.#options.layout.dataParallel));
    addExchange(this.#totals, this.#traffic.activity);
    const tokens = steps.reduce((sum, { rows }) => sum + rows.length, 0);
    return this.#options.clusters.map((_, i) => this.#result(i, steps.length, tokens));
  }

  #step(step: SimulatedStep): void {
    const traffic = this.#traffic;
    const halves = this.#halvesOf(step);
    if (halves.length === 2) this.#overlappedSteps++;
    traffic.countStep(step.sampled);
    addExchange(this.#totals, traffic.activity);
    addExchange(this.#totals, traffic.sampling);
    for (const timer of this.#timers) timer.beginStep(step, traffic);
    this.#layerTotals.forEach((totals, layer) => {
      for (const timer of this.#timers) timer.beginLayer(layer, step);
      if (step.rows.length <= this.#oneShotTokens) this.#oneShot(layer, step, totals);
      else halves.forEach((half, i) => this.#half(layer, half, this.#homes[i]!, totals));
      for (const timer of this.#timers) timer.endLayer(layer);
    });
    this.#timers.forEach((timer, i) => this.#requests[i]!.stepEnded(step, timer.endStep(step, traffic)));
  }

  #halvesOf(step: SimulatedStep): TokenBatch[] {
    const { overlap, microbatchTokens = fewestMicrobatchedTokens } = this.#options;
    const largest = Math.max(...step.groupTokens);
    const overlaps = overlap && largest >= microbatchTokens && largest > this.#oneShotTokens;
    return overlaps ? halvesOf(step) : [step];
  }

  #half(layer: number, half: TokenBatch, homeChooser: HomeChooser, totals: TrafficTotals): void {
    const traffic = this.#traffic;
    const homes = new Int32Array(half.rows.length);
    homeChooser.choose(half, layer, homes);
    this.#routing.count(layer, half.rows, homes);
    const { plan } = this.#options;
    const rides = layer + 1 < plan.layers && homeChooser.pregates(layer + 1);
    traffic.countLayer(half.groupTokens, this.#routing, rides ? this.#options.layout.tensorParallel : 0);
    this.#addLayer(layer, totals);
    const pregates = homeChooser.pregates(layer);
    for (const timer of this.#timers) timer.addHalf(layer, half, traffic, this.#routing, pregates);
  }

  #oneShot(layer: number, step: SimulatedStep, totals: TrafficTotals): void {
    const homes = new Int32Array(step.rows.length);
    this.#slicesByIndex.choose(step, layer, homes);
    this.#routing.count(layer, step.rows, homes, false);
    this.#traffic.countLayer(step.groupTokens, this.#routing, 0, true);
    this.#addLayer(layer, totals);
    for (const timer of this.#timers) timer.addOneShot(layer, this.#traffic, this.#routing);
  }

  #addLayer(layer: number, totals: TrafficTotals): void {
    for (const name of layerExchangeNames) {
      addExchange(totals, this.#traffic.layer[name]);
      addExchange(this.#totals, this.#traffic.layer[name]);
    }
    this.#tallies[layer]!.add(this.#routing);
  }

  #result(index: number, steps: number, tokens: number): SimulationResult {
    const { schedule, plan, planName, predictor, clusters } = this.#options;
    const timer = this.#timers[index]!;
    const { totals, links } = timer;
    const { bytes, messages } = this.#totals;
    const sum = (record: Record<string, number>): number =>
      Object.values(record).reduce((total, part) => total + part, 0);
    const layers = this.#tallies.map((tally, layer): SimulatedLayer => {
      const layerTotals = this.#layerTotals[layer]!;
      const milliseconds = totals.layerSeconds[layer]! * 1000;
      return {
        milliseconds,
        bytes: layerTotals.bytes,
        messages: sum(layerTotals.messages),
        ...tally.figures(),
        busiestLink: linkName(timer, largestOf(totals.layerLinkSeconds[layer]!)),
        busiestRank: Math.max(0, largestOf(totals.layerRankSeconds[layer]!)),
      };
    });
    const communication = sum(totals.exchangeSeconds);
    const expertExchange = totals.exchangeSeconds.dispatch + totals.exchangeSeconds.combine;
    const undivided = totals.computeSeconds + communication;
    const result: SimulationResult = {
      name: schedule,
      plan: planName ?? plan.solver,
      predictor: schedule === 'speculative' ? predictor : null,
      homes: this.#homes[0]!.source,
      cluster: clusters[index]!.name,
      bytes: { ...bytes, total: sum(bytes) },
      messages: sum(messages),
      bytesByLink: links.classBytes,
      messagesByLink: links.classMessages,
      steps,
      stepMs: percentiles(timer.steps.map(({ seconds }) => seconds * 1000)),
      ...this.#requests[index]!.figures(),
      tokensPerSecond: tokens / totals.seconds,
      totalMs: totals.seconds * 1000,
      computeMs: totals.computeSeconds * 1000,
      communicationMs: communication * 1000,
      expertExchangeShare: expertExchange / undivided,
      communicationShare: communication / undivided,
      linkImbalance: totals.expertByteSeconds / totals.evenExpertByteSeconds,
      overlappedSteps: this.#overlappedSteps,
      ...meanFigures(layers),
      layers,
      stepTimes: timer.steps.map((step) => ({
        tokens: step.tokens,
        decodeTokens: step.decodeTokens,
        milliseconds: step.seconds * 1000,
        busiestLink: linkName(timer, step.busiestLink),
        busiestRank: step.busiestRank,
      })),
      busiestLink: busiestLink(timer),
      busiestRank: busiestRank(totals.rankComputeSeconds),
      notes: [],
    };
    if (schedule !== 'speculative') result.recall = Number.NaN;
    result.notes = notesOf(result, this.#options.layout, communication === 0 ? 0 : totals.byteSeconds / communication);
    return result;
  }
}

function linkName({ links }: StepTimer, end: number): string | null {
  return links.ends[end]?.name ?? null;
}

function busiestLink({ totals, links }: StepTimer): SimulationResult['busiestLink'] {
  const end = largestOf(totals.linkWaitSeconds);
  if (end < 0) return null;
  const { name, class: linkClass } = links.ends[end]!;
  const busyMs = links.busySeconds[end]! * 1000;
  return { name, class: linkClass, waitedMs: totals.linkWaitSeconds[end]! * 1000, busyMs, bytes: links.bytes[end]! };
}

function busiestRank(seconds: Float64Array): SimulationResult['busiestRank'] {
  const most = Math.max(...seconds);
  const mean = seconds.reduce((sum, own) => sum + own, 0) / seconds.length;
  return { rank: seconds.indexOf(most), computeMs: most * 1000, overMean: most / mean };
}
