import type { ScheduleResources } from './schedule.ts';

/** Takes a chunk of one expert's outputs for other ranks' rows: `targets` [rows] int32, `weights` [rows] f32 pointers. */
export type GuestSink = (expert: number, output: number, targets: number, weights: number, rows: number) => void;

/**
 * The (row, expert) pairs this rank computes in one layer, grouped by expert with a counting sort: first `count` every
 * pair, then `place` every pair in the same order, own pairs before guests' pairs, then `run`.
 */
export class ExpertWork {
  readonly #resources: ScheduleResources;
  readonly #own: Int32Array;
  readonly #all: Int32Array;
  readonly #next: Int32Array;
  #pairs: number;

  constructor(resources: ScheduleResources) {
    const experts = resources.ownership.experts;
    this.#resources = resources;
    this.#own = new Int32Array(experts);
    this.#all = new Int32Array(experts);
    this.#next = new Int32Array(experts);
    this.#pairs = 0;
  }

  begin(): void {
    this.#own.fill(0);
    this.#all.fill(0);
  }

  countOwn(expert: number): void {
    this.#own[expert]!++;
    this.#all[expert]!++;
  }

  countGuests(expert: number, pairs: number): void {
    this.#all[expert]! += pairs;
  }

  /** Between counting and placing: fixes where each expert's list starts. */
  layOut(): void {
    let first = 0;
    for (let expert = 0; expert < this.#all.length; expert++) {
      this.#next[expert] = first;
      first += this.#all[expert]!;
    }
    this.#pairs = first;
  }

  /** @param inputRow row at `buffers.input`; @param target row of the partial sums or returned rows it goes to */
  place(expert: number, inputRow: number, target: number, weight: number): void {
    const { integers, floats, buffers } = this.#resources;
    const entry = this.#next[expert]!++;
    integers[buffers.workInputs / 4 + entry] = inputRow;
    integers[buffers.workTargets / 4 + entry] = target;
    floats[buffers.workWeights / 4 + entry] = weight;
  }

  /**
   * Runs every expert once, ascending. Own rows' weighted outputs are added to `homePartials` of the expert's device
   * (blocks of `ownRows` rows), guests' outputs go to `guests`.
   */
  run(layer: number, ownRows: number, guests: GuestSink): void {
    const { kernels, experts, ownership, observer, hiddenSize, buffers } = this.#resources;
    let first = 0;
    for (let expert = 0; expert < this.#all.length; expert++) {
      const count = this.#all[expert]!;
      if (count === 0) continue;
      const own = this.#own[expert]!;
      const entry = first;
      const partial = buffers.homePartials + ownership.device(layer, expert) * ownRows * hiddenSize * 4;
      experts.run(layer, expert, buffers.input, buffers.workInputs + entry * 4, count, (output, start, rows) => {
        const ownHere = Math.min(rows, Math.max(0, own - start));
        const offset = (entry + start) * 4;
        if (ownHere > 0) {
          const [targets, weights] = [buffers.workTargets + offset, buffers.workWeights + offset];
          kernels.scatterAddWeighted(output, targets, weights, partial, ownHere, hiddenSize);
        }
        if (ownHere < rows) {
          const guestOffset = offset + ownHere * 4;
          const [targets, weights] = [buffers.workTargets + guestOffset, buffers.workWeights + guestOffset];
          guests(expert, output + ownHere * hiddenSize * 4, targets, weights, rows - ownHere);
        }
      });
      first += count;
    }
    observer.computed(layer, this.#pairs);
  }
}
