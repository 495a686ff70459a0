/**
 * How the threads of one rank share a kernel call. The calling thread lays the call down as a number of parts, wakes the
 * helpers and works through the parts itself; whoever is awake takes the next one. Parts are sets of outputs that no other part
 * writes, so neither their order nor who computes them shows in any bit.
 *
 * A helper that wakes too late finds nothing left and costs nothing. The caller returns when no helper is at a part any more.
 */

/** Words of the control area. */
const Word = {
  /** Calls laid down; helpers sleep on it. */
  calls: 0,
  /** Helpers asleep, or about to be. */
  sleepers: 1,
  /** `openBit` while there may be parts left, plus the helpers that are at the call. */
  state: 2,
  /** The next part. */
  next: 3,
  /** 1 once a part has failed on a helper. */
  failed: 4,
  kind: 5,
  parts: 6,
  arguments: 8,
} as const;
const mostArguments = 24;
const openBit = 1 << 16;
/** Looks before going to sleep; some ten microseconds, more than between two calls of a layer. */
const looks = 4000;

/** Runs one part of a call; the arguments are as they were laid down. */
export type PartRunner = (kind: number, args: readonly number[], part: number) => void;

export function createTeamArea(): SharedArrayBuffer {
  return new SharedArrayBuffer((Word.arguments + mostArguments) * 4);
}

export class KernelTeam {
  readonly #words: Int32Array;
  /** Pointers reach 4 GiB. */
  readonly #arguments: Uint32Array;

  constructor(area: SharedArrayBuffer) {
    this.#words = new Int32Array(area);
    this.#arguments = new Uint32Array(area, Word.arguments * 4);
  }

  /** On the calling thread: runs all parts, with whatever help there is. Arguments are integers from 0 to 2^32 - 1. */
  call(kind: number, args: readonly number[], parts: number, run: PartRunner): void {
    const words = this.#words;
    this.#arguments.set(args);
    words[Word.kind] = kind;
    words[Word.parts] = parts;
    Atomics.store(words, Word.next, 0);
    Atomics.store(words, Word.state, openBit);
    Atomics.add(words, Word.calls, 1);
    if (Atomics.load(words, Word.sleepers) > 0) Atomics.notify(words, Word.calls);
    try {
      this.#takeParts(kind, args, parts, run);
    } finally {
      Atomics.sub(words, Word.state, openBit);
      this.#awaitHelpers();
    }
    if (words[Word.failed] !== 0) throw new Error('a kernel failed on a helper thread of this rank');
  }

  /** On a helper: takes part in every call, for ever. */
  help(run: PartRunner): never {
    const words = this.#words;
    let seen = 0;
    for (;;) {
      seen = this.#awaitCall(seen);
      if (!this.#enter()) continue;
      try {
        const kind = words[Word.kind]!;
        this.#takeParts(kind, [...this.#arguments], words[Word.parts]!, run);
      } catch {
        Atomics.store(words, Word.failed, 1);
      }
      if (Atomics.sub(words, Word.state, 1) === 1) Atomics.notify(words, Word.state);
    }
  }

  #takeParts(kind: number, args: readonly number[], parts: number, run: PartRunner): void {
    for (;;) {
      const part = Atomics.add(this.#words, Word.next, 1);
      if (part >= parts) return;
      run(kind, args, part);
    }
  }

  /** Joins the call under way; false when there is none any more. What it is stays as it is until this helper leaves. */
  #enter(): boolean {
    for (;;) {
      const state = Atomics.load(this.#words, Word.state);
      if ((state & openBit) === 0) return false;
      if (Atomics.compareExchange(this.#words, Word.state, state, state + 1) === state) return true;
    }
  }

  #awaitCall(seen: number): number {
    const words = this.#words;
    for (let look = 0; look < looks; look++) {
      const calls = Atomics.load(words, Word.calls);
      if (calls !== seen) return calls;
    }
    Atomics.add(words, Word.sleepers, 1);
    while (Atomics.load(words, Word.calls) === seen) Atomics.wait(words, Word.calls, seen);
    Atomics.sub(words, Word.sleepers, 1);
    return Atomics.load(words, Word.calls);
  }

  #awaitHelpers(): void {
    const words = this.#words;
    for (let look = 0; look < looks; look++) if (Atomics.load(words, Word.state) === 0) return;
    for (;;) {
      const state = Atomics.load(words, Word.state);
      if (state === 0) return;
      Atomics.wait(words, Word.state, state);
    }
  }
}
