import { Kernels, type PackedWeight } from '../kernels/kernels.ts';
import type { ModelConfig } from '../model/config.ts';
import type { LayerInput, LayerSteps, MoeSchedule } from '../schedule/schedule.ts';
import type { PhaseClock } from '../timeline/phase-clock.ts';
import { Phase } from '../timeline/phases.ts';
import { headTreeLeaves, type Partition } from './partition.ts';
import type { PageCache } from './page-cache.ts';
import type { TransformerBuffers } from './rank-buffers.ts';
import type { RankWeights } from './weights.ts';

/** Consecutive tokens of one sequence in a step. */
export interface SequenceChunk {
  /** First row of the step. */
  first: number;
  rows: number;
  /** Position of that row in its sequence. */
  firstPosition: number;
  /** Pointer to the sequence's page ids. */
  pageTable: number;
}

/** What one data-parallel group computes in one step, or a micro-batch of it. */
export interface StepBatch {
  /** Row of the buffers where it begins. */
  firstRow: number;
  /** T, may be 0 for a group that has nothing left while others go on. */
  tokens: number;
  tokenIds: Int32Array;
  positions: Int32Array;
  /** Row of each token in the run's records. */
  recordRows: Int32Array;
  sequences: SequenceChunk[];
}

/** How a step's forward pass hides communication; no choice changes a bit. */
export interface ForwardOptions {
  /** Choose a layer's slices as early as can be. */
  preparesSlices: boolean;
  /** Pieces in which gathered rows arrive; from two on, the next layer's projections of a piece run while later ones arrive. */
  gatherPieces: number;
  /** Exchange as few times a layer as can be. */
  oneShot: boolean;
}

/** One rank's forward pass: its attention heads, and the MoE layers through a schedule. */
export class Transformer {
  readonly #kernels: Kernels;
  readonly #integers: Int32Array;
  readonly #floats: Float32Array;
  readonly #config: ModelConfig;
  readonly #part: Partition;
  readonly #weights: RankWeights;
  readonly #buffers: TransformerBuffers;
  readonly #cache: PageCache;
  readonly #clock: PhaseClock;

  constructor(
    kernels: Kernels,
    integers: Int32Array,
    config: ModelConfig,
    part: Partition,
    weights: RankWeights,
    buffers: TransformerBuffers,
    cache: PageCache,
    clock: PhaseClock,
  ) {
    this.#kernels = kernels;
    this.#integers = integers;
    this.#floats = new Float32Array(integers.buffer);
    this.#config = config;
    this.#part = part;
    this.#weights = weights;
    this.#buffers = buffers;
    this.#cache = cache;
    this.#clock = clock;
    kernels.ropeTables(
      buffers.ropeCos,
      buffers.ropeSin,
      config.maximumPositions,
      config.headDimension,
      config.ropeTheta,
    );
  }

  /**
   * Embeds and runs all layers; afterwards `buffers.addresses` [T] say where each token's last hidden row is, on every tensor
   * rank. Micro-batches of a step may take turns at every yield, as long as an earlier one is never behind.
   */
  *forward(batch: StepBatch, schedule: MoeSchedule, options: ForwardOptions): LayerSteps {
    const buffers = this.#buffers;
    const clock = this.#clock;
    const { hiddenSize, layers } = this.#config;
    const { firstRow, tokens } = batch;
    const rowBytes = hiddenSize * 4;
    const hidden = buffers.hidden + firstRow * rowBytes;
    const addresses = buffers.addresses + firstRow * 4;
    clock.layer = -1;
    clock.enter(Phase.embed);
    this.#integers.set(batch.tokenIds, buffers.tokenIds / 4 + firstRow);
    this.#integers.set(batch.positions, buffers.positions / 4 + firstRow);
    if (tokens > 0) this.#kernels.embedRows(this.#weights.embedding, buffers.tokenIds + firstRow * 4, tokens, hidden);
    for (let row = 0; row < tokens; row++) this.#integers[addresses / 4 + row] = hidden + row * rowBytes;
    let projected = 0;
    const input: LayerInput = {
      layer: 0,
      last: false,
      tokens,
      tokenIds: batch.tokenIds,
      recordRows: batch.recordRows,
      addresses,
      hidden,
      attention: buffers.headSums[0]! + firstRow * rowBytes,
      preparesSlices: options.preparesSlices,
      pieces: options.gatherPieces,
      onRows: undefined,
      oneShot: options.oneShot,
    };
    const onRows = (source: number, indices: number, rows: number): void => {
      clock.enter(Phase.attention);
      this.#projectEarly(input.layer + 1, firstRow, source, indices, rows);
      projected += rows;
    };
    for (let layer = 0; layer < layers; layer++) {
      clock.layer = layer;
      clock.enter(Phase.attention);
      input.layer = layer;
      input.last = layer === layers - 1;
      input.onRows = options.gatherPieces > 1 && !input.last ? onRows : undefined;
      if (projected < tokens) this.#projectAll(layer, batch);
      projected = 0;
      if (tokens > 0) this.#attend(layer, batch);
      const order = schedule.attentionOrder(input);
      if (tokens > 0) this.#projectOutput(layer, batch, order);
      yield* schedule.layer(input);
    }
    clock.layer = -1;
    clock.enter(Phase.other);
  }

  /**
   * Final norm and this rank's share of the vocabulary for `rows` of the step: logits [rows, V], of which only this rank's
   * `vocabularyRanges` columns are written.
   *
   * @param rowNumbers rows of the step
   */
  logits(rowNumbers: number[]): number {
    const { hiddenSize, vocabularySize, rmsEpsilon } = this.#config;
    const { addresses, logitsRows, normalized, logits } = this.#buffers;
    const rows = rowNumbers.length;
    rowNumbers.forEach((row, i) => (this.#integers[logitsRows / 4 + i] = this.#integers[addresses / 4 + row]!));
    this.#kernels.rmsNormAt(logitsRows, this.#weights.finalNorm, normalized, rows, hiddenSize, rmsEpsilon);
    const { tensorParallel, tensorParallelRank } = this.#part;
    const { first, end } = panelRange(vocabularySize, tensorParallel, tensorParallelRank);
    this.#kernels.matmul(normalized, hiddenSize, rows, this.#weights.output, logits, vocabularySize, first, end);
    return logits;
  }

  /** Residual rows -> normalised -> query, key and value rows [T, *], as the projections give them. */
  #projectAll(layer: number, { firstRow, tokens }: StepBatch): void {
    if (tokens === 0) return;
    const { hiddenSize, rmsEpsilon } = this.#config;
    const { inputNorm } = this.#weights.attention[layer]!;
    const buffers = this.#buffers;
    const normalized = buffers.normalized + firstRow * hiddenSize * 4;
    this.#kernels.rmsNormAt(buffers.addresses + firstRow * 4, inputNorm, normalized, tokens, hiddenSize, rmsEpsilon);
    for (const { weight, target } of this.#projections(layer))
      this.#project(weight, normalized, tokens, target + firstRow * weight.outputs * 4);
  }

  /** The same for some rows, ahead of the others. @param indices int32 [rows] tokens, counted from firstRow */
  #projectEarly(layer: number, firstRow: number, source: number, indices: number, rows: number): void {
    const { hiddenSize, rmsEpsilon } = this.#config;
    const { inputNorm } = this.#weights.attention[layer]!;
    const { arrived, arrivedNormalized } = this.#buffers;
    const kernels = this.#kernels;
    kernels.rmsNorm(source, hiddenSize, inputNorm, arrivedNormalized, hiddenSize, rows, hiddenSize, rmsEpsilon);
    for (const { weight, target } of this.#projections(layer)) {
      this.#project(weight, arrivedNormalized, rows, arrived);
      kernels.scatterRows(arrived, indices, target + firstRow * weight.outputs * 4, rows, weight.outputs);
    }
  }

  #projections(layer: number): { weight: PackedWeight; target: number }[] {
    const { query, key, value } = this.#weights.attention[layer]!;
    const buffers = this.#buffers;
    return [
      { weight: query, target: buffers.query },
      { weight: key, target: buffers.key },
      { weight: value, target: buffers.value },
    ];
  }

  #project(weight: PackedWeight, normalized: number, rows: number, target: number): void {
    this.#kernels.matmul(normalized, this.#config.hiddenSize, rows, weight, target, weight.outputs);
  }

  /** Query, key and value rows -> context [T, local heads * headDimension]. */
  #attend(layer: number, batch: StepBatch): void {
    const kernels = this.#kernels;
    const { headDimension } = this.#config;
    const { firstRow, tokens } = batch;
    const part = this.#part;
    const weights = this.#weights.attention[layer]!;
    const buffers = this.#buffers;
    const query = this.#normalize(weights.query, weights.queryNorm, buffers.query, batch, part.firstHead);
    const key = this.#normalize(weights.key, weights.keyNorm, buffers.key, batch, part.firstKeyValueHead);
    const valueStride = weights.value.outputs;
    const value = buffers.value + firstRow * valueStride * 4;
    this.#clip(value, tokens * valueStride);
    const [cos, sin] = [buffers.ropeCos, buffers.ropeSin];
    const positions = buffers.positions + firstRow * 4;
    kernels.applyRope(query.pointer, query.stride, positions, tokens, part.heads, headDimension, cos, sin);
    kernels.applyRope(key.pointer, key.stride, positions, tokens, part.keyValueHeads, headDimension, cos, sin);

    const contextStride = part.heads * headDimension;
    const keyPool = this.#cache.keyPools[layer]!;
    const valuePool = this.#cache.valuePools[layer]!;
    for (const chunk of batch.sequences) {
      kernels.storeKeyValue(
        key.pointer + chunk.first * key.stride * 4,
        key.stride,
        value + chunk.first * valueStride * 4,
        valueStride,
        chunk.rows,
        chunk.firstPosition,
        chunk.pageTable,
        keyPool,
        valuePool,
        part.keyValueHeads,
        headDimension,
      );
      kernels.attention(
        query.pointer + chunk.first * query.stride * 4,
        query.stride,
        chunk.rows,
        chunk.firstPosition,
        part.heads,
        part.keyValueHeads,
        headDimension,
        Math.fround(1 / Math.sqrt(headDimension)),
        this.#config.slidingWindow ?? 0,
        keyPool,
        valuePool,
        chunk.pageTable,
        buffers.context + (firstRow + chunk.first) * contextStride * 4,
        contextStride,
        buffers.attention,
      );
    }
  }

  /** Norm of projected queries or keys, where there is one; returns where this rank's heads start. */
  #normalize(
    weight: PackedWeight,
    norm: number | undefined,
    buffer: number,
    { firstRow, tokens }: StepBatch,
    firstHead: number,
  ): { pointer: number; stride: number } {
    const { headDimension, rmsEpsilon, queryKeyNorm } = this.#config;
    const stride = weight.outputs;
    const target = buffer + firstRow * stride * 4;
    if (norm !== undefined) {
      const width = queryKeyNorm === 'full' ? stride : headDimension;
      this.#kernels.rmsNorm(target, width, norm, target, width, tokens * (stride / width), width, rmsEpsilon);
    }
    this.#clip(target, tokens * stride);
    return { pointer: queryKeyNorm === 'full' ? target + firstHead * headDimension * 4 : target, stride };
  }

  /**
   * Context -> this rank's heads' sum in headSums[0] [T, H]. Rows are put in the wanted order here, where a row is narrowest:
   * this rank's heads, not the hidden size. @param order int32 [T], undefined = as they are
   */
  #projectOutput(layer: number, { firstRow, tokens }: StepBatch, order: number | undefined): void {
    const { headDimension, heads } = this.#config;
    const buffers = this.#buffers;
    const part = this.#part;
    const width = part.heads * headDimension;
    let context = buffers.context + firstRow * width * 4;
    if (order !== undefined) {
      this.#clock.enter(Phase.permute);
      const ordered = buffers.orderedContext + firstRow * width * 4;
      this.#kernels.gatherRows(context, order, ordered, tokens, width);
      context = ordered;
    }
    this.#clock.enter(Phase.attention);
    const leaves = headTreeLeaves(heads) / part.tensorParallel;
    const sums = buffers.headSums.map((sum) => sum + firstRow * this.#config.hiddenSize * 4);
    this.#sumHeads({ heads: this.#weights.attention[layer]!.output, context, tokens, sums }, 0, leaves, 0);
  }

  /** OLMoE's clip_qkv, after the norm. */
  #clip(target: number, count: number): void {
    const limit = this.#config.clipQueryKeyValue;
    if (limit === undefined) return;
    const values = this.#floats.subarray(target / 4, target / 4 + count);
    for (let i = 0; i < values.length; i++) values[i] = Math.min(limit, Math.max(-limit, values[i]!));
  }

  /**
   * Output projection summed over `leaves` leaves of this rank's heads, as a balanced binary tree, into sums[level]; a tensor
   * rank's heads are a subtree of the whole model's tree.
   */
  #sumHeads(work: HeadSum, leaf: number, leaves: number, level: number): void {
    const { heads, tokens, sums } = work;
    const count = tokens * this.#config.hiddenSize;
    if (leaves > 1) {
      this.#sumHeads(work, leaf, leaves / 2, level);
      this.#sumHeads(work, leaf + leaves / 2, leaves / 2, level + 1);
      this.#kernels.addRows(sums[level]!, sums[level + 1]!, count);
      return;
    }
    const headsPerLeaf = this.#part.heads / (headTreeLeaves(this.#config.heads) / this.#part.tensorParallel);
    for (let head = leaf * headsPerLeaf; head < (leaf + 1) * headsPerLeaf; head++) {
      const first = head === leaf * headsPerLeaf;
      this.#projectHead(work, heads[head]!, head, sums[first ? level : level + 1]!);
      if (!first) this.#kernels.addRows(sums[level]!, sums[level + 1]!, count);
    }
  }

  #projectHead({ context, tokens }: HeadSum, weight: PackedWeight, head: number, target: number): void {
    const { hiddenSize, headDimension } = this.#config;
    const stride = this.#part.heads * headDimension;
    this.#kernels.matmul(context + head * headDimension * 4, stride, tokens, weight, target, hiddenSize);
  }
}

/** One output projection: a weight per local head, context [T, local heads * headDimension], sums [levels][T, H]. */
interface HeadSum {
  heads: PackedWeight[];
  context: number;
  tokens: number;
  sums: number[];
}

/** Both halves of a step, as micro-batches; the earlier tokens first, since later ones attend to them. */
export function halvesOf(batch: StepBatch): [StepBatch, StepBatch] {
  const middle = Math.ceil(batch.tokens / 2);
  return [partOf(batch, 0, middle), partOf(batch, middle, batch.tokens)];
}

function partOf(batch: StepBatch, start: number, end: number): StepBatch {
  const sequences: SequenceChunk[] = [];
  for (const { first, rows, firstPosition, pageTable } of batch.sequences) {
    const from = Math.max(first, start);
    const to = Math.min(first + rows, end);
    if (from >= to) continue;
    sequences.push({ first: from - start, rows: to - from, firstPosition: firstPosition + from - first, pageTable });
  }
  return {
    firstRow: batch.firstRow + start,
    tokens: end - start,
    tokenIds: batch.tokenIds.subarray(start, end),
    positions: batch.positions.subarray(start, end),
    recordRows: batch.recordRows.subarray(start, end),
    sequences,
  };
}

/** Panels of the vocabulary that a tensor rank computes. */
function panelRange(vocabularySize: number, ranks: number, rank: number): { first: number; end: number } {
  const panels = Math.ceil(vocabularySize / Kernels.panelWidth);
  return { first: Math.floor((panels * rank) / ranks), end: Math.floor((panels * (rank + 1)) / ranks) };
}

/** [tp] columns of the vocabulary that each tensor rank computes: whole panels, ascending. */
export function vocabularyRanges(vocabularySize: number, ranks: number): { first: number; end: number }[] {
  return Array.from({ length: ranks }, (_, rank) => {
    const { first, end } = panelRange(vocabularySize, ranks, rank);
    return {
      first: Math.min(first * Kernels.panelWidth, vocabularySize),
      end: Math.min(end * Kernels.panelWidth, vocabularySize),
    };
  });
}
