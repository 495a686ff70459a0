import { purposes, type Communicator, type Purpose } from '../comm/communicator.ts';
import type { Tokenizer } from '../model/tokenizer.ts';
import type { RoutingObserver } from '../schedule/routing-observer.ts';
import { drive } from '../schedule/drive.ts';
import type { MoeSchedule } from '../schedule/schedule.ts';
import type { PhaseClock } from '../timeline/phase-clock.ts';
import { Phase } from '../timeline/phases.ts';
import { fewestMicrobatchedTokens, type FinishReason } from './api.ts';
import { Batcher, type PlannedStep, type Sequence } from './batcher.ts';
import type { PageCache } from './page-cache.ts';
import type { Partition } from './partition.ts';
import type { TransformerBuffers } from './rank-buffers.ts';
import type { LogitsChunk, RankEvent, RankJob, RankOutput, RankReport, RankStep } from './rank-protocol.ts';
import { StopWatcher } from './stop-strings.ts';
import type { TokenSampler, VocabularyRange } from './token-sampler.ts';
import { halvesOf, type StepBatch, type Transformer } from './transformer.ts';

/** Gathers are cut into pieces of no fewer tokens, and into no more pieces. */
const fewestPieceTokens = 64;
const mostPieces = 4;

/** The parts of a rank that a run needs. */
export interface GenerationParts {
  world: Communicator;
  part: Partition;
  cache: PageCache;
  memory: WebAssembly.Memory;
  buffers: TransformerBuffers;
  transformer: Transformer;
  sampler: TokenSampler;
  vocabulary: VocabularyRange;
  vocabularySize: number;
  hiddenSize: number;
  stepTokens: number;
  endTokenIds: number[];
  /** Loaded on first use, for stop strings. */
  tokenizer(): Tokenizer;
  observer: RoutingObserver;
  clock: PhaseClock;
  emit(event: RankEvent): void;
}

/** How its rows travel, where a job may leave that open. */
export type ChosenExchange = Pick<RankReport, 'compactRows' | 'oneShotTokens'>;

/** Runs a job on this rank: steps until every group has finished. */
export class Generation {
  readonly #parts: GenerationParts;
  readonly #job: RankJob;
  readonly #chosen: ChosenExchange;
  readonly #schedules: readonly [MoeSchedule, MoeSchedule];
  readonly #integers: Int32Array;
  readonly #batcher: Batcher;
  readonly #outputs: Map<number, RankOutput>;
  readonly #stops: Map<number, StopWatcher>;
  readonly #steps: RankStep[];
  readonly #logits: LogitsChunk[];
  #startedAt: number;

  constructor(
    parts: GenerationParts,
    job: RankJob,
    schedules: readonly [MoeSchedule, MoeSchedule],
    chosen: ChosenExchange,
  ) {
    this.#parts = parts;
    this.#job = job;
    this.#chosen = chosen;
    this.#schedules = schedules;
    this.#integers = new Int32Array(parts.memory.buffer);
    this.#outputs = new Map();
    this.#stops = new Map();
    this.#steps = [];
    this.#logits = [];
    this.#startedAt = 0;
    const waiting = job.requests.flatMap((options, request) =>
      job.placement[request] === parts.part.dataParallelRank
        ? [
            {
              request,
              options,
              tokens: [...options.tokens],
              computed: 0,
              generated: 0,
              firstRecordRow: job.firstRecordRow[request]!,
              finishReason: undefined,
            },
          ]
        : [],
    );
    for (const { request, options } of waiting) {
      this.#outputs.set(request, { request, tokens: [], finishReason: 'length', tokenMs: [] });
      if (options.stopStrings.length > 0)
        this.#stops.set(request, new StopWatcher(parts.tokenizer(), options.stopStrings));
    }
    this.#batcher = new Batcher(waiting, parts.cache, this.#integers, parts.stepTokens);
  }

  run(): RankReport {
    const { world, observer, clock, part } = this.#parts;
    const before = snapshot(world);
    observer.reset(this.#job.recordRouting);
    world.barrier();
    this.#startedAt = performance.now();
    clock.begin(this.#job.timelineSteps);
    for (let index = 0; ; index++) {
      const start = performance.now();
      const traffic = snapshot(world);
      const step = this.#batcher.next();
      const largestGroup = this.#largestGroup(step.batch.tokens);
      if (largestGroup === 0) break;
      observer.step = index;
      clock.beginStep(index, step.prefillTokens > 0 ? 'prefill' : 'decode');
      this.#forward(step.batch, largestGroup);
      this.#batcher.advance(step);
      const finished = this.#sample(step, index);
      const record = difference(traffic, snapshot(world), start, step, part.tensorParallel);
      this.#steps.push(record);
      if (this.#job.streaming) this.#parts.emit({ type: 'step', rank: world.rank, index, step: record });
      for (const sequence of finished) this.#batcher.finish(sequence);
    }
    const after = snapshot(world);
    const timeline = clock.timeline();
    return {
      outputs: part.tensorParallelRank === 0 ? [...this.#outputs.values()] : [],
      steps: this.#steps,
      bytes: subtract(before.bytes, after.bytes),
      messages: after.messages - before.messages,
      ...this.#chosen,
      statistics: observer.statistics.slice(),
      routing: observer.chunks ?? [],
      logits: this.#logits,
      wallMs: performance.now() - this.#startedAt,
      phases: clock.milliseconds.slice(),
      timeline,
    };
  }

  /** How the step is cut is the same on every rank that shares a collective. */
  #forward(batch: StepBatch, largestGroup: number): void {
    const { transformer, clock } = this.#parts;
    const { overlap, microbatchTokens = fewestMicrobatchedTokens } = this.#job;
    const oneShot = largestGroup <= this.#chosen.oneShotTokens;
    const inHalves = overlap.includes('microbatch') && largestGroup >= microbatchTokens && !oneShot;
    const halves = inHalves ? halvesOf(batch) : [batch];
    // Both halves are cut into equally many pieces, so that neither overtakes the other.
    const pieces = Math.floor(batch.tokens / halves.length / fewestPieceTokens);
    const options = {
      preparesSlices: overlap.includes('prepare'),
      gatherPieces: overlap.includes('gather') ? Math.max(1, Math.min(mostPieces, pieces)) : 1,
      oneShot,
    };
    drive(
      halves.map((half, i) => transformer.forward(half, this.#schedules[i]!, options)),
      clock,
    );
  }

  /** Most tokens any group has in this step; groups step together, and with one group no message is needed. */
  #largestGroup(tokens: number): number {
    const { world, part, buffers, memory, clock } = this.#parts;
    if (part.ranks === part.tensorParallel) return tokens;
    const own = buffers.activity + part.ranks * 4;
    this.#integers[own / 4] = tokens;
    const all = new Uint8Array(memory.buffer, buffers.activity, part.ranks * 4);
    const counts = new Int32Array(part.ranks).fill(4);
    clock.waiting('control', () => world.allGather(new Uint8Array(memory.buffer, own, 4), all, counts, 'control'));
    return Math.max(...new Int32Array(memory.buffer, buffers.activity, part.ranks));
  }

  /** Logits of the rows that need them, next tokens, ends. Returns the sequences that have finished. */
  #sample(step: PlannedStep, index: number): Sequence[] {
    const { transformer, sampler, endTokenIds, clock } = this.#parts;
    const everyRow = this.#job.logits === 'all';
    const rows = everyRow ? step.rowSequence.map((_, row) => row) : step.sampled.map(({ row }) => row);
    if (rows.length === 0) return [];
    clock.enter(Phase.logits);
    const logits = transformer.logits(rows);
    clock.enter(Phase.other);
    this.#keepLogits(step, rows, logits);
    const entries = step.sampled.map(({ row, sequence }, i) => ({ row: everyRow ? row : i, sequence }));
    if (entries.length === 0) return [];
    clock.enter(Phase.sample);
    const tokens = sampler.sample(logits, entries);
    clock.enter(Phase.other);
    const now = performance.now() - this.#startedAt;
    const finished: Sequence[] = [];
    step.sampled.forEach(({ sequence }, i) => {
      const token = tokens[i]!;
      const output = this.#outputs.get(sequence.request)!;
      sequence.tokens.push(token);
      sequence.generated++;
      output.tokens.push(token);
      output.tokenMs.push(now);
      const reason = this.#finishReason(sequence, token, endTokenIds);
      sequence.finishReason = reason;
      if (reason !== undefined) {
        output.finishReason = reason;
        finished.push(sequence);
      }
      if (this.#job.streaming && this.#parts.part.tensorParallelRank === 0) {
        const event = { request: sequence.request, token, generated: sequence.generated - 1, finishReason: reason };
        this.#parts.emit({ type: 'token', index, ...event });
      }
    });
    return finished;
  }

  #finishReason(sequence: Sequence, token: number, endTokenIds: number[]): FinishReason | undefined {
    if (!sequence.options.ignoreEnd && endTokenIds.includes(token)) return 'end';
    if (this.#stops.get(sequence.request)?.push(token) === true) return 'stop';
    return sequence.generated >= sequence.options.maxNewTokens ? 'length' : undefined;
  }

  /** Copies this rank's columns of kept rows. */
  #keepLogits(step: PlannedStep, rows: number[], logits: number): void {
    if (this.#job.logits === 'none') return;
    const { vocabulary, vocabularySize, memory } = this.#parts;
    const floats = new Float32Array(memory.buffer);
    const columns = vocabulary.end - vocabulary.first;
    const values = new Float32Array(rows.length * columns);
    rows.forEach((_, i) => {
      const source = logits / 4 + i * vocabularySize;
      values.set(floats.subarray(source + vocabulary.first, source + vocabulary.end), i * columns);
    });
    this.#logits.push({
      requests: Int32Array.from(rows, (row) => step.rowSequence[row]!.request),
      positions: Int32Array.from(rows, (row) => step.batch.positions[row]!),
      values,
    });
  }
}

interface Snapshot {
  bytes: Record<Purpose, number>;
  messages: number;
  waitMs: number;
}

function snapshot(world: Communicator): Snapshot {
  const { bytes, messages, waitMs } = world.counters;
  return { bytes: { ...bytes }, messages: purposes.reduce((sum, purpose) => sum + messages[purpose], 0), waitMs };
}

function subtract(before: Record<Purpose, number>, after: Record<Purpose, number>): Record<Purpose, number> {
  return Object.fromEntries(purposes.map((purpose) => [purpose, after[purpose] - before[purpose]])) as Record<
    Purpose,
    number
  >;
}

function difference(before: Snapshot, after: Snapshot, start: number, step: PlannedStep, groupRanks: number): RankStep {
  return {
    tokens: step.batch.tokens,
    groupRanks,
    prefillTokens: step.prefillTokens,
    milliseconds: performance.now() - start,
    waitMs: after.waitMs - before.waitMs,
    bytes: subtract(before.bytes, after.bytes),
  };
}
