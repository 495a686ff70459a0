import { Kernels, type PackedWeight } from '../kernels/kernels.ts';
import type { ModelConfig } from '../model/config.ts';
import type { LayerInput } from '../schedule/schedule.ts';
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

/** What one data-parallel group computes in one step. */
export interface StepBatch {
  /** T, may be 0 for a group that has nothing left while others go on. */
  tokens: number;
  tokenIds: Int32Array;
  positions: Int32Array;
  /** Row of each token in the run's records. */
  recordRows: Int32Array;
  sequences: SequenceChunk[];
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
   * Embeds and runs all layers; afterwards `buffers.hidden` [T, H] is the last layer's output on every tensor rank.
   *
   * @param runMoe from attention's partial sums to the next layer's input
   */
  forward(batch: StepBatch, runMoe: (input: LayerInput) => void): void {
    const { hidden, tokenIds, positions, headSums } = this.#buffers;
    const clock = this.#clock;
    clock.enter(Phase.embed);
    this.#integers.set(batch.tokenIds, tokenIds / 4);
    this.#integers.set(batch.positions, positions / 4);
    if (batch.tokens > 0) this.#kernels.embedRows(this.#weights.embedding, tokenIds, batch.tokens, hidden);
    const input: LayerInput = {
      layer: 0,
      tokens: batch.tokens,
      tokenIds: batch.tokenIds,
      recordRows: batch.recordRows,
      hidden,
      attention: headSums[0]!,
    };
    for (let layer = 0; layer < this.#config.layers; layer++) {
      clock.enter(Phase.attention);
      clock.layer = layer;
      if (batch.tokens > 0) this.#attention(layer, batch);
      input.layer = layer;
      runMoe(input);
    }
    clock.enter(Phase.other);
    clock.layer = -1;
  }

  /**
   * Final norm and this rank's share of the vocabulary for `rows` of the step: logits [rows, V], of which only this rank's
   * `vocabularyRanges` columns are written.
   *
   * @param rowsPointer int32 row numbers
   */
  logits(rowsPointer: number, rows: number): number {
    const { hiddenSize, vocabularySize, rmsEpsilon } = this.#config;
    const { hidden, normalized, logits } = this.#buffers;
    const gathered = this.#buffers.headSums[0]!;
    this.#kernels.gatherRows(hidden, rowsPointer, gathered, rows, hiddenSize);
    this.#kernels.rmsNorm(
      gathered,
      hiddenSize,
      this.#weights.finalNorm,
      normalized,
      hiddenSize,
      rows,
      hiddenSize,
      rmsEpsilon,
    );
    const { tensorParallel, tensorParallelRank } = this.#part;
    const { first, end } = panelRange(vocabularySize, tensorParallel, tensorParallelRank);
    this.#kernels.matmul(normalized, hiddenSize, rows, this.#weights.output, logits, vocabularySize, first, end);
    return logits;
  }

  /** hidden [T, H] -> this rank's heads' sum in headSums[0] [T, H]. */
  #attention(layer: number, batch: StepBatch): void {
    const kernels = this.#kernels;
    const { hiddenSize, headDimension, rmsEpsilon } = this.#config;
    const { tokens } = batch;
    const part = this.#part;
    const weights = this.#weights.attention[layer]!;
    const buffers = this.#buffers;
    kernels.rmsNorm(
      buffers.hidden,
      hiddenSize,
      weights.inputNorm,
      buffers.normalized,
      hiddenSize,
      tokens,
      hiddenSize,
      rmsEpsilon,
    );
    const query = this.#project(weights.query, weights.queryNorm, buffers.query, tokens, part.firstHead);
    const key = this.#project(weights.key, weights.keyNorm, buffers.key, tokens, part.firstKeyValueHead);
    this.#matmul(weights.value, buffers.value, tokens);
    this.#clip(buffers.value, tokens * weights.value.outputs);
    const [cos, sin] = [buffers.ropeCos, buffers.ropeSin];
    kernels.applyRope(query.pointer, query.stride, buffers.positions, tokens, part.heads, headDimension, cos, sin);
    kernels.applyRope(key.pointer, key.stride, buffers.positions, tokens, part.keyValueHeads, headDimension, cos, sin);

    const contextStride = part.heads * headDimension;
    const valueStride = part.keyValueHeads * headDimension;
    const keyPool = this.#cache.keyPools[layer]!;
    const valuePool = this.#cache.valuePools[layer]!;
    for (const chunk of batch.sequences) {
      kernels.storeKeyValue(
        key.pointer + chunk.first * key.stride * 4,
        key.stride,
        buffers.value + chunk.first * valueStride * 4,
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
        buffers.context + chunk.first * contextStride * 4,
        contextStride,
        buffers.attention,
      );
    }
    const leaves = headTreeLeaves(this.#config.heads) / part.tensorParallel;
    this.#sumHeads(weights.output, 0, leaves, part.heads / leaves, tokens, 0);
  }

  /** Projection and optional norm; returns where this rank's heads start. */
  #project(
    weight: PackedWeight,
    norm: number | undefined,
    target: number,
    tokens: number,
    firstHead: number,
  ): { pointer: number; stride: number } {
    const { headDimension, rmsEpsilon, queryKeyNorm } = this.#config;
    const stride = weight.outputs;
    this.#matmul(weight, target, tokens);
    if (norm !== undefined) {
      const width = queryKeyNorm === 'full' ? stride : headDimension;
      this.#kernels.rmsNorm(target, width, norm, target, width, tokens * (stride / width), width, rmsEpsilon);
    }
    this.#clip(target, tokens * stride);
    return { pointer: queryKeyNorm === 'full' ? target + firstHead * headDimension * 4 : target, stride };
  }

  #matmul(weight: PackedWeight, target: number, tokens: number): void {
    this.#kernels.matmul(this.#buffers.normalized, this.#config.hiddenSize, tokens, weight, target, weight.outputs);
  }

  /** OLMoE's clip_qkv, after the norm. */
  #clip(target: number, count: number): void {
    const limit = this.#config.clipQueryKeyValue;
    if (limit === undefined) return;
    const values = this.#floats.subarray(target / 4, target / 4 + count);
    for (let i = 0; i < values.length; i++) values[i] = Math.min(limit, Math.max(-limit, values[i]!));
  }

  /**
   * Output projection summed over `leaves` leaves of `headsPerLeaf` heads each, as a balanced binary tree, into
   * headSums[level]; a tensor rank's heads are a subtree of the whole model's tree.
   */
  #sumHeads(
    heads: PackedWeight[],
    leaf: number,
    leaves: number,
    headsPerLeaf: number,
    tokens: number,
    level: number,
  ): void {
    const { headSums } = this.#buffers;
    const count = tokens * this.#config.hiddenSize;
    if (leaves > 1) {
      this.#sumHeads(heads, leaf, leaves / 2, headsPerLeaf, tokens, level);
      this.#sumHeads(heads, leaf + leaves / 2, leaves / 2, headsPerLeaf, tokens, level + 1);
      this.#kernels.addRows(headSums[level]!, headSums[level + 1]!, count);
      return;
    }
    for (let head = leaf * headsPerLeaf; head < (leaf + 1) * headsPerLeaf; head++) {
      const first = head === leaf * headsPerLeaf;
      this.#projectHead(heads[head]!, head, tokens, headSums[first ? level : level + 1]!);
      if (!first) this.#kernels.addRows(headSums[level]!, headSums[level + 1]!, count);
    }
  }

  #projectHead(weight: PackedWeight, head: number, tokens: number, target: number): void {
    const { hiddenSize, headDimension } = this.#config;
    const stride = this.#part.heads * headDimension;
    this.#kernels.matmul(this.#buffers.context + head * headDimension * 4, stride, tokens, weight, target, hiddenSize);
  }
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
