/** Benefits are compared as integers in steps of 2^-20, so that sums are exact on every host. */
const benefitScale = 1 << 20;
/** Largest rank count the exact method is used for. */
const largestExactRanks = 16;
const unreachable = Number.MAX_SAFE_INTEGER;

/**
 * Splits T tokens over G ranks into slices of fixed sizes (the first T % G ranks take one more) with the largest total benefit:
 * a transportation problem. Every token starts on its best rank; then, one token at a time, overfull ranks push tokens to ranks
 * with room along the cheapest path over the G ranks, where a step d1 -> d2 costs the least loss among the tokens now on d1
 * (successive shortest paths, exact). Beyond 16 ranks tokens go straight from overfull ranks to ranks with room, cheapest
 * first. Equal input gives equal output on every host; ties go to the lower token, then the lower rank.
 */
export class BalancedSlices {
  readonly ranks: number;
  /** [T] token indices grouped by rank, ascending within a rank; valid up to the last solve's T. */
  readonly order: Int32Array;
  /** [G] tokens per rank. */
  readonly counts: Int32Array;
  /** [T] rank of each token. */
  readonly rankOf: Uint16Array;
  /** [T][G] scaled benefits. */
  readonly #benefit: Int32Array;
  /** [G] */
  readonly #held: Int32Array;
  /** One queue of tokens per pair of ranks, cheapest loss first; entries whose token has moved on are dropped when met. */
  readonly #queues: TokenQueue[];
  /** [G] cheapest path cost from the overfull ranks, and the rank before on it. */
  readonly #distance: Float64Array;
  readonly #before: Int32Array;
  /** [G][G] loss of the cheapest step. */
  readonly #step: Float64Array;

  constructor(maximumTokens: number, ranks: number) {
    this.ranks = ranks;
    this.order = new Int32Array(maximumTokens);
    this.counts = new Int32Array(ranks);
    this.rankOf = new Uint16Array(maximumTokens);
    this.#benefit = new Int32Array(maximumTokens * ranks);
    this.#held = new Int32Array(ranks);
    this.#queues = Array.from({ length: ranks * ranks }, () => new TokenQueue());
    this.#distance = new Float64Array(ranks);
    this.#before = new Int32Array(ranks);
    this.#step = new Float64Array(ranks * ranks);
  }

  /** @param benefit [T, G] of placing a token on a rank, each within +-1000 */
  solve(benefit: Float32Array, tokens: number): void {
    const { ranks, counts } = this;
    const least = Math.floor(tokens / ranks);
    for (let rank = 0; rank < ranks; rank++) counts[rank] = least + (rank < tokens % ranks ? 1 : 0);
    this.#startOnBest(benefit, tokens);
    if (this.#overfull()) {
      this.#fillQueues(tokens);
      if (ranks <= largestExactRanks) this.#moveAlongPaths();
      else this.#moveDirectly();
    }
    this.#group(tokens);
  }

  #startOnBest(benefit: Float32Array, tokens: number): void {
    const { ranks } = this;
    const scaled = this.#benefit;
    this.#held.fill(0);
    for (let token = 0, at = 0; token < tokens; token++) {
      let best = 0;
      const base = at;
      for (let rank = 0; rank < ranks; rank++, at++) {
        // | 0 also turns NaN into 0, so that no input can hang the search.
        const value = (benefit[at]! * benefitScale) | 0;
        scaled[at] = value;
        if (value > scaled[base + best]!) best = rank;
      }
      this.rankOf[token] = best;
      this.#held[best]!++;
    }
  }

  #overfull(): boolean {
    for (let rank = 0; rank < this.ranks; rank++) {
      if (this.#held[rank]! > this.counts[rank]!) return true;
    }
    return false;
  }

  #fillQueues(tokens: number): void {
    for (const queue of this.#queues) queue.clear();
    for (let token = 0; token < tokens; token++) this.#enqueue(token, false);
    for (const queue of this.#queues) queue.heapify();
  }

  #enqueue(token: number, ordered: boolean): void {
    const { ranks } = this;
    const from = this.rankOf[token]!;
    const base = token * ranks;
    const current = this.#benefit[base + from]!;
    for (let to = 0; to < ranks; to++) {
      if (to === from) continue;
      const loss = current - this.#benefit[base + to]!;
      if (ordered) this.#queues[from * ranks + to]!.push(loss, token);
      else this.#queues[from * ranks + to]!.append(loss, token);
    }
  }

  /** Cheapest loss of moving any token from one rank to another. */
  #cheapest(from: number, to: number): number {
    const queue = this.#queues[from * this.ranks + to]!;
    while (queue.size > 0 && this.rankOf[queue.firstToken()] !== from) queue.pop();
    return queue.size > 0 ? queue.firstLoss() : unreachable;
  }

  #move(from: number, to: number): void {
    const token = this.#queues[from * this.ranks + to]!.firstToken();
    this.rankOf[token] = to;
    this.#held[from]!--;
    this.#held[to]!++;
    this.#enqueue(token, true);
  }

  #moveAlongPaths(): void {
    const { ranks, counts } = this;
    const distance = this.#distance;
    const step = this.#step;
    const before = this.#before;
    for (let from = 0; from < ranks; from++) this.#refreshSteps(from);
    for (;;) {
      for (let rank = 0; rank < ranks; rank++) {
        distance[rank] = this.#held[rank]! > counts[rank]! ? 0 : unreachable;
        before[rank] = -1;
      }
      // Bellman-Ford: steps may gain once earlier moves have been paid for, cycles cannot.
      for (let changed = true; changed;) {
        changed = false;
        for (let from = 0; from < ranks; from++) {
          if (distance[from] === unreachable) continue;
          for (let to = 0; to < ranks; to++) {
            const loss = step[from * ranks + to]!;
            if (loss !== unreachable && distance[from]! + loss < distance[to]!) {
              distance[to] = distance[from]! + loss;
              before[to] = from;
              changed = true;
            }
          }
        }
      }
      let target = -1;
      for (let rank = 0; rank < ranks; rank++) {
        if (this.#held[rank]! < counts[rank]! && (target < 0 || distance[rank]! < distance[target]!)) target = rank;
      }
      if (target < 0) return;
      let last = target;
      for (let rank = target; before[rank]! >= 0; rank = before[rank]!) {
        this.#move(before[rank]!, rank);
        last = before[rank]!;
      }
      for (let rank = target; ; rank = before[rank]!) {
        this.#refreshSteps(rank);
        if (rank === last) break;
      }
    }
  }

  #refreshSteps(from: number): void {
    const { ranks } = this;
    for (let to = 0; to < ranks; to++)
      this.#step[from * ranks + to] = from === to ? unreachable : this.#cheapest(from, to);
  }

  #moveDirectly(): void {
    const { ranks, counts } = this;
    for (let from = 0; from < ranks; from++) {
      while (this.#held[from]! > counts[from]!) {
        let target = -1;
        let least = unreachable;
        for (let to = 0; to < ranks; to++) {
          if (this.#held[to]! >= counts[to]!) continue;
          const loss = this.#cheapest(from, to);
          if (loss < least) {
            least = loss;
            target = to;
          }
        }
        this.#move(from, target);
      }
    }
  }

  /** Counting sort of the tokens by rank. */
  #group(tokens: number): void {
    const next = this.#held;
    let start = 0;
    for (let rank = 0; rank < this.ranks; rank++) {
      next[rank] = start;
      start += this.counts[rank]!;
    }
    for (let token = 0; token < tokens; token++) this.order[next[this.rankOf[token]!]!++] = token;
  }
}

/** Binary heap of (loss, token), smallest loss first, ties to the lower token. Keeps its storage between uses. */
class TokenQueue {
  #losses: Int32Array = new Int32Array(64);
  #tokens: Int32Array = new Int32Array(64);
  size: number = 0;

  clear(): void {
    this.size = 0;
  }

  firstLoss(): number {
    return this.#losses[0]!;
  }

  firstToken(): number {
    return this.#tokens[0]!;
  }

  /** Adds without keeping the order; `heapify` restores it. */
  append(loss: number, token: number): void {
    if (this.size === this.#losses.length) {
      const losses = new Int32Array(2 * this.size);
      losses.set(this.#losses);
      this.#losses = losses;
      const tokens = new Int32Array(2 * this.size);
      tokens.set(this.#tokens);
      this.#tokens = tokens;
    }
    this.#losses[this.size] = loss;
    this.#tokens[this.size++] = token;
  }

  heapify(): void {
    for (let at = (this.size >> 1) - 1; at >= 0; at--) this.#sink(at);
  }

  push(loss: number, token: number): void {
    this.append(loss, token);
    let at = this.size - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#less(at, parent)) return;
      this.#exchange(at, parent);
      at = parent;
    }
  }

  pop(): void {
    this.#exchange(0, --this.size);
    this.#sink(0);
  }

  #sink(start: number): void {
    let at = start;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.size) return;
      if (child + 1 < this.size && this.#less(child + 1, child)) child++;
      if (!this.#less(child, at)) return;
      this.#exchange(at, child);
      at = child;
    }
  }

  #less(a: number, b: number): boolean {
    const difference = this.#losses[a]! - this.#losses[b]!;
    return difference < 0 || (difference === 0 && this.#tokens[a]! < this.#tokens[b]!);
  }

  #exchange(a: number, b: number): void {
    const loss = this.#losses[a]!;
    const token = this.#tokens[a]!;
    this.#losses[a] = this.#losses[b]!;
    this.#tokens[a] = this.#tokens[b]!;
    this.#losses[b] = loss;
    this.#tokens[b] = token;
  }
}
