import type { Communicator } from '../comm/communicator.ts';
import type { Kernels } from '../kernels/kernels.ts';
import type { PhaseClock } from '../timeline/phase-clock.ts';
import type { Sequence } from './batcher.ts';
import type { TransformerBuffers } from './rank-buffers.ts';
import { drawToken, uniform } from './sampling.ts';

/** Columns of the vocabulary a rank computes. */
export interface VocabularyRange {
  first: number;
  end: number;
}

/**
 * Next tokens from logits whose vocabulary is split over the tensor ranks; every rank of the group ends with the same ids.
 * Greedy rows exchange one (value, id) pair per rank, sampled rows the whole row.
 */
export class TokenSampler {
  readonly #kernels: Kernels;
  readonly #memory: ArrayBufferLike;
  readonly #group: Communicator;
  readonly #buffers: TransformerBuffers;
  readonly #vocabularySize: number;
  readonly #ranges: VocabularyRange[];
  readonly #clock: PhaseClock;

  /** @param ranges one per tensor rank */
  constructor(
    kernels: Kernels,
    memory: WebAssembly.Memory,
    group: Communicator,
    buffers: TransformerBuffers,
    vocabularySize: number,
    ranges: VocabularyRange[],
    clock: PhaseClock,
  ) {
    this.#kernels = kernels;
    this.#memory = memory.buffer;
    this.#group = group;
    this.#buffers = buffers;
    this.#vocabularySize = vocabularySize;
    this.#ranges = ranges;
    this.#clock = clock;
  }

  /**
   * @param logits pointer [rows, V]
   * @param rows which row belongs to which sequence
   * @returns one token id per entry of `rows`
   */
  sample(logits: number, rows: { row: number; sequence: Sequence }[]): number[] {
    const tokens = this.#greedy(logits, rows);
    rows.forEach(({ row, sequence }, i) => {
      if (sequence.options.sampling.temperature > 0) tokens[i] = this.#draw(logits, row, sequence);
    });
    return tokens;
  }

  #greedy(logits: number, rows: { row: number }[]): number[] {
    const { first, end } = this.#ranges[this.#group.rank]!;
    const { candidatesSent, candidates } = this.#buffers;
    const rowFloats = this.#vocabularySize;
    const values = new Float32Array(this.#memory, candidatesSent, rows.length * 2);
    const ids = new Int32Array(this.#memory, candidatesSent, rows.length * 2);
    const floats = new Float32Array(this.#memory);
    rows.forEach(({ row }, i) => {
      const start = logits / 4 + row * rowFloats;
      const best = end > first ? first + this.#kernels.argmaxRow((start + first) * 4, end - first) : first;
      values[2 * i] = end > first ? floats[start + best]! : -Infinity;
      ids[2 * i + 1] = best;
    });
    const bytes = rows.length * 8;
    const size = this.#group.size;
    const all = new Uint8Array(this.#memory, candidates, size * bytes);
    const sent = new Uint8Array(this.#memory, candidatesSent, bytes);
    const counts = new Int32Array(size).fill(bytes);
    this.#clock.waiting('control', () => this.#group.allGather(sent, all, counts, 'control'));
    return rows.map((_, i) => {
      let bestValue = -Infinity;
      let bestId = -1;
      // Ascending ranks hold ascending ids, so a strict comparison gives ties to the lower id.
      for (let rank = 0; rank < size; rank++) {
        const at = candidates / 4 + rank * rows.length * 2 + 2 * i;
        if (bestId === -1 || floats[at]! > bestValue) {
          bestValue = floats[at]!;
          bestId = new Int32Array(this.#memory, (at + 1) * 4, 1)[0]!;
        }
      }
      return bestId;
    });
  }

  #draw(logits: number, row: number, sequence: Sequence): number {
    const width = this.#vocabularySize;
    const pointer = logits + row * width * 4;
    const { first, end } = this.#ranges[this.#group.rank]!;
    const whole = new Uint8Array(this.#memory, pointer, width * 4);
    const counts = Int32Array.from(this.#ranges, (range) => (range.end - range.first) * 4);
    const own = whole.subarray(first * 4, end * 4);
    this.#clock.waiting('control', () => this.#group.allGather(own, whole, counts, 'control'));
    const values = new Float32Array(this.#memory, pointer, width);
    const { sampling } = sequence.options;
    for (let i = 0; i < width; i++) values[i] = values[i]! / sampling.temperature;
    this.#kernels.softmaxRows(pointer, width, 1, width);
    return drawToken(values, sampling, uniform(sampling.seed, sequence.generated));
  }
}
