import type { Communicator } from '../comm/communicator.ts';
import type { RankContext } from '../comm/rank-protocol.ts';
import { Kernels } from '../kernels/kernels.ts';
import { ThreadedKernels } from '../kernels/threaded-kernels.ts';
import type { Checkpoint } from '../model/checkpoint.ts';
import { loadTokenizer, type Tokenizer } from '../model/tokenizer.ts';
import type { Plan } from '../plan/plan.ts';
import { createPredictor } from '../predict/index.ts';
import { createSchedule } from '../schedule/index.ts';
import { Ownership } from '../schedule/ownership.ts';
import { PredictedSlices } from '../schedule/predicted-slices.ts';
import { RoutingObserver } from '../schedule/routing-observer.ts';
import type { MoeSchedule, ScheduleResources } from '../schedule/schedule.ts';
import { PhaseClock } from '../timeline/phase-clock.ts';
import { Arena } from './arena.ts';
import { ExpertBank } from './expert-bank.ts';
import { type ChosenExchange, Generation, type GenerationParts } from './generation.ts';
import { PageCache } from './page-cache.ts';
import { compactRowsPay, type ExchangeFigures, measureExchanges, oneShotLimit } from './exchange-choices.ts';
import type { Partition } from './partition.ts';
import { reserveBuffers } from './rank-buffers.ts';
import type { ByMeasuring, RankData, RankEvent, RankJob, RankReport } from './rank-protocol.ts';
import { TokenSampler } from './token-sampler.ts';
import { Transformer, vocabularyRanges } from './transformer.ts';
import { WeightLoader } from './weights.ts';

/** A rank's share of the model under one plan, in a memory of its own, with all that running jobs needs. */
export class RankShare {
  readonly #world: Communicator;
  readonly #part: Partition;
  readonly #plan: Plan;
  readonly #stepTokens: number;
  readonly #memory: WebAssembly.Memory;
  /** Of either half of a step. */
  readonly #resources: readonly Omit<ScheduleResources, 'compactRows'>[];
  readonly #parts: GenerationParts;
  /** By schedule, predictor, and whether rows are compact. */
  readonly #schedules: Map<string, readonly [MoeSchedule, MoeSchedule]>;
  readonly #exchangeScratch: number;
  #exchanges: ExchangeFigures | undefined;

  /** Collective: attaches its memory. Loads the weights. */
  constructor(
    { communicator: world, rank, data, emit }: RankContext<RankData, RankEvent>,
    checkpoint: Checkpoint,
    part: Partition,
    plan: Plan,
    tensorGroup: Communicator,
  ) {
    const { config } = checkpoint;
    const ownership = new Ownership(plan, part.ranks);
    const arena = new Arena(Kernels.reservedBytes);
    const loader = new WeightLoader(checkpoint, arena, part, ownership, rank);
    const threads = data.threads ?? 1;
    const buffers = reserveBuffers(arena, config, part, ownership, data.stepTokens, threads);
    const cache = new PageCache(arena, config, part, data.cachePositions);
    const memory = arena.createMemory();
    const kernels = threads === 1 ? new Kernels(memory) : new ThreadedKernels(memory, threads);
    world.attachMemory(memory);
    loader.load(kernels, memory);

    const integers = new Int32Array(memory.buffer);
    const observer = new RoutingObserver(ownership, rank, config.layers, config.topK);
    const clock = new PhaseClock();
    const ranges = vocabularyRanges(config.vocabularySize, part.tensorParallel);
    let tokenizer: Tokenizer | undefined;
    this.#world = world;
    this.#part = part;
    this.#plan = plan;
    this.#stepTokens = data.stepTokens;
    this.#memory = memory;
    this.#schedules = new Map();
    this.#exchangeScratch = buffers.exchangeScratch;
    this.#exchanges = undefined;
    this.#resources = buffers.schedules.map((scheduleBuffers): Omit<ScheduleResources, 'compactRows'> => ({
      kernels,
      floats: new Float32Array(memory.buffer),
      integers,
      bytes: new Uint8Array(memory.buffer),
      world,
      tensorGroup,
      ownership,
      experts: new ExpertBank(
        kernels,
        integers,
        config,
        loader.weights.moe,
        buffers.bank,
        ownership,
        rank - part.tensorParallelRank,
        part.tensorParallel,
      ),
      observer,
      clock,
      hiddenSize: config.hiddenSize,
      topK: config.topK,
      buffers: scheduleBuffers,
    }));
    this.#parts = {
      world,
      part,
      cache,
      memory,
      buffers: buffers.transformer,
      transformer: new Transformer(kernels, integers, config, part, loader.weights, buffers.transformer, cache, clock),
      sampler: new TokenSampler(
        kernels,
        memory,
        tensorGroup,
        buffers.transformer,
        config.vocabularySize,
        ranges,
        clock,
      ),
      vocabulary: ranges[part.tensorParallelRank]!,
      vocabularySize: config.vocabularySize,
      hiddenSize: config.hiddenSize,
      stepTokens: data.stepTokens,
      endTokenIds: config.endTokenIds,
      tokenizer: () => (tokenizer ??= loadTokenizer(data.modelDirectory)),
      observer,
      clock,
      emit,
    };
  }

  /** Collective over all ranks, each with its share under this plan. */
  run(job: RankJob): RankReport {
    this.#world.useMemory(this.#memory);
    const chosen = this.#choose(job);
    return new Generation(this.#parts, job, this.#schedulesFor(job, chosen), chosen).run();
  }

  /** Collective where links must be measured; that is done once. */
  #choose({ compactRows, oneShotTokens }: RankJob): ChosenExchange {
    return {
      compactRows: typeof compactRows === 'boolean' ? compactRows : compactRowsPay(this.#measured(compactRows)),
      oneShotTokens: typeof oneShotTokens === 'number' ? oneShotTokens : this.#oneShotLimit(oneShotTokens),
    };
  }

  #oneShotLimit({ most, ranksPerHost }: ByMeasuring & { most: number }): number {
    const { ranks } = this.#part;
    const { hiddenSize } = this.#parts;
    return Math.min(most, oneShotLimit(this.#measured({ ranksPerHost }), { ranks, ranksPerHost, hiddenSize }));
  }

  #measured({ ranksPerHost }: ByMeasuring): ExchangeFigures {
    return (this.#exchanges ??= measureExchanges(this.#world, this.#memory, this.#exchangeScratch, ranksPerHost));
  }

  #schedulesFor(
    { schedule, predictor }: RankJob,
    { compactRows }: ChosenExchange,
  ): readonly [MoeSchedule, MoeSchedule] {
    const key = `${schedule}/${predictor}/${compactRows}`;
    const known = this.#schedules.get(key);
    if (known !== undefined) return known;
    const made = this.#resources.map((common) => {
      const own = { ...common, compactRows };
      return createSchedule(schedule, own, () => {
        const created = createPredictor(predictor, this.#plan);
        return new PredictedSlices(own, this.#plan, this.#part.dataParallelRank, created, this.#stepTokens);
      });
    }) as [MoeSchedule, MoeSchedule];
    this.#schedules.set(key, made);
    return made;
  }
}
