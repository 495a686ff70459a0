import type { RankContext } from '../comm/rank-protocol.ts';
import { Kernels } from '../kernels/kernels.ts';
import { ThreadedKernels } from '../kernels/threaded-kernels.ts';
import { openCheckpoint } from '../model/checkpoint.ts';
import { loadTokenizer, type Tokenizer } from '../model/tokenizer.ts';
import { createPredictor } from '../predict/index.ts';
import { createSchedule } from '../schedule/index.ts';
import { Ownership } from '../schedule/ownership.ts';
import { PredictedSlices } from '../schedule/predicted-slices.ts';
import { RoutingObserver } from '../schedule/routing-observer.ts';
import { PhaseClock } from '../timeline/phase-clock.ts';
import type { MoeSchedule, ScheduleResources } from '../schedule/schedule.ts';
import { Arena } from './arena.ts';
import { ExpertBank } from './expert-bank.ts';
import { Generation, type GenerationParts } from './generation.ts';
import { PageCache } from './page-cache.ts';
import { partition } from './partition.ts';
import { reserveBuffers } from './rank-buffers.ts';
import type { RankData, RankEvent, RankJob, RankReport } from './rank-protocol.ts';
import { TokenSampler } from './token-sampler.ts';
import { Transformer, vocabularyRanges } from './transformer.ts';
import { WeightLoader } from './weights.ts';

export { agreementOf } from './agreement.ts';

/** Entry point of a rank: loads its share of the model and answers jobs. */
export function createRank(context: RankContext<RankData, RankEvent>): (job: RankJob) => RankReport {
  const { communicator: world, rank, data } = context;
  const checkpoint = openCheckpoint(data.modelDirectory);
  const { config } = checkpoint;
  const part = partition(config, data.layout, rank);
  const ownership = new Ownership(data.plan, part.ranks);
  const arena = new Arena(Kernels.reservedBytes);
  const loader = new WeightLoader(checkpoint, arena, part, ownership, rank);
  const threads = data.threads ?? 1;
  const buffers = reserveBuffers(arena, config, part, ownership, data.stepTokens, threads);
  const cache = new PageCache(arena, config, part, data.cachePositions);
  const memory = arena.createMemory();
  const kernels = threads === 1 ? new Kernels(memory) : new ThreadedKernels(memory, threads);
  world.attachMemory(memory);
  loader.load(kernels, memory);
  checkpoint.close();

  const integers = new Int32Array(memory.buffer);
  const tensorGroup = world.split(part.dataParallelRank, part.tensorParallelRank);
  const observer = new RoutingObserver(ownership, rank, config.layers, config.topK);
  const clock = new PhaseClock();
  const resources = buffers.schedules.map((scheduleBuffers): Omit<ScheduleResources, 'compactRows'> => ({
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
  const ranges = vocabularyRanges(config.vocabularySize, part.tensorParallel);
  let tokenizer: Tokenizer | undefined;
  const parts: GenerationParts = {
    world,
    part,
    cache,
    memory,
    buffers: buffers.transformer,
    transformer: new Transformer(kernels, integers, config, part, loader.weights, buffers.transformer, cache, clock),
    sampler: new TokenSampler(kernels, memory, tensorGroup, buffers.transformer, config.vocabularySize, ranges, clock),
    vocabulary: ranges[part.tensorParallelRank]!,
    vocabularySize: config.vocabularySize,
    hiddenSize: config.hiddenSize,
    stepTokens: data.stepTokens,
    endTokenIds: config.endTokenIds,
    tokenizer: () => (tokenizer ??= loadTokenizer(data.modelDirectory)),
    observer,
    clock,
    emit: (event) => context.emit(event),
  };

  const schedules = new Map<string, [MoeSchedule, MoeSchedule]>();
  const schedulesFor = (job: RankJob): [MoeSchedule, MoeSchedule] => {
    const key = `${job.schedule}/${job.predictor}/${job.compactRows}`;
    const known = schedules.get(key);
    if (known !== undefined) return known;
    const made = resources.map((common) => {
      const own = { ...common, compactRows: job.compactRows };
      return createSchedule(job.schedule, own, () => {
        const predictor = createPredictor(job.predictor, data.plan);
        return new PredictedSlices(own, data.plan, part.dataParallelRank, predictor, data.stepTokens);
      });
    }) as [MoeSchedule, MoeSchedule];
    schedules.set(key, made);
    return made;
  };
  return (job) => new Generation(parts, job, schedulesFor(job)).run();
}
