/** Benefits are whole numbers from 0 to this. */
export const largestBenefit = 255;
/** Losses lie between -largestBenefit and +largestBenefit: one list of tokens per loss. */
const lossLists = 2 * largestBenefit + 1;
/** Largest rank count the exact method is used for. */
const largestExactRanks = 16;
const unreachable = 0x7fffffff;
const none = -1;

/**
 * Splits T tokens over G ranks into slices whose sizes differ by at most one, with the largest total benefit: a
 * transportation problem. Which T % G ranks take one token more is part of the choice. Every token starts on its best rank;
 * then overfull ranks push tokens to ranks with room along the cheapest path over the G ranks, where a step d1 -> d2 costs the
 * least loss among the tokens now on d1 (successive shortest paths, exact). Losses are small whole numbers, so tokens wait in
 * one list per pair of ranks and loss: finding and moving one takes constant time, and the whole is near linear in T. Beyond 16
 * ranks tokens go straight from overfull ranks to ranks with room, cheapest first. Equal input gives equal output on every host.
 */
export class BalancedSlices {
  readonly ranks: number;
  /** [T] token indices grouped by rank, ascending within a rank; valid up to the last solve's T. */
  readonly order: Int32Array;
  /** [G] tokens per rank. */
  readonly counts: Int32Array;
  /** [T] rank of each token. */
  readonly rankOf: Uint16Array;
  /** [T, G], of the solve under way. */
  #benefit: Uint8Array;
  /** [G][G][losses] first token of each list; [T][G] neighbours of a token in its list of moves to each rank. */
  readonly #first: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  /** [G][G] no list before this one holds a token. */
  readonly #lowest: Int32Array;
  /** [G] cheapest path cost from the ranks that must give, and the rank before on it. */
  readonly #distance: Int32Array;
  readonly #before: Int32Array;

  constructor(maximumTokens: number, ranks: number) {
    this.ranks = ranks;
    this.order = new Int32Array(maximumTokens);
    this.counts = new Int32Array(ranks);
    this.rankOf = new Uint16Array(maximumTokens);
    this.#benefit = new Uint8Array(0);
    this.#first = new Int32Array(ranks * ranks * lossLists);
    this.#next = new Int32Array(maximumTokens * ranks);
    this.#previous = new Int32Array(maximumTokens * ranks);
    this.#lowest = new Int32Array(ranks * ranks);
    this.#distance = new Int32Array(ranks);
    this.#before = new Int32Array(ranks);
  }

  /** @param benefit [T, G] of placing a token on a rank */
  solve(benefit: Uint8Array, tokens: number): void {
    const { ranks } = this;
    this.#benefit = benefit;
    const least = Math.floor(tokens / ranks);
    const most = Math.ceil(tokens / ranks);
    this.#startOnBest(tokens);
    if (this.#outside(least, most)) {
      this.#fillLists(tokens);
      // Ranks above the larger size give until none is left; then ranks below the smaller size take from the larger ones.
      for (const bound of least === most ? [most] : [most, least]) {
        if (ranks <= largestExactRanks) this.#moveAlongPaths(bound);
        else this.#moveDirectly(bound);
      }
    }
    this.#group(tokens);
  }

  /** Ties go to the rank with fewer tokens so far, then to the lower rank. */
  #startOnBest(tokens: number): void {
    const { ranks, counts, rankOf } = this;
    const benefit = this.#benefit;
    counts.fill(0);
    for (let token = 0, at = 0; token < tokens; token++) {
      let best = 0;
      let largest = -1;
      for (let rank = 0; rank < ranks; rank++, at++) {
        const value = benefit[at]!;
        if (value > largest || (value === largest && counts[rank]! < counts[best]!)) {
          largest = value;
          best = rank;
        }
      }
      rankOf[token] = best;
      counts[best]!++;
    }
  }

  #outside(least: number, most: number): boolean {
    for (let rank = 0; rank < this.ranks; rank++) {
      if (this.counts[rank]! > most || this.counts[rank]! < least) return true;
    }
    return false;
  }

  #fillLists(tokens: number): void {
    this.#first.fill(none);
    this.#lowest.fill(lossLists);
    // From the last token, so that lower tokens come first in a list.
    for (let token = tokens - 1; token >= 0; token--) this.#list(token);
  }

  /** Puts a token at the head of its rank's lists. */
  #list(token: number): void {
    const { ranks } = this;
    const from = this.rankOf[token]!;
    const base = token * ranks;
    const zero = this.#benefit[base + from]! + largestBenefit;
    for (let to = 0; to < ranks; to++) {
      if (to === from) continue;
      const pair = from * ranks + to;
      const loss = zero - this.#benefit[base + to]!;
      const list = pair * lossLists + loss;
      const head = this.#first[list]!;
      this.#next[base + to] = head;
      this.#previous[base + to] = none;
      if (head !== none) this.#previous[head * ranks + to] = token;
      this.#first[list] = token;
      if (loss < this.#lowest[pair]!) this.#lowest[pair] = loss;
    }
  }

  #unlist(token: number): void {
    const { ranks } = this;
    const from = this.rankOf[token]!;
    const base = token * ranks;
    const zero = this.#benefit[base + from]! + largestBenefit;
    for (let to = 0; to < ranks; to++) {
      if (to === from) continue;
      const next = this.#next[base + to]!;
      const previous = this.#previous[base + to]!;
      if (next !== none) this.#previous[next * ranks + to] = previous;
      if (previous !== none) this.#next[previous * ranks + to] = next;
      else this.#first[(from * ranks + to) * lossLists + zero - this.#benefit[base + to]!] = next;
    }
  }

  /** List of the cheapest move between two ranks; lossLists when the first has no token. */
  #cheapest(from: number, to: number): number {
    const pair = from * this.ranks + to;
    let loss = this.#lowest[pair]!;
    while (loss < lossLists && this.#first[pair * lossLists + loss] === none) loss++;
    this.#lowest[pair] = loss;
    return loss;
  }

  #move(from: number, to: number): void {
    const token = this.#first[(from * this.ranks + to) * lossLists + this.#cheapest(from, to)]!;
    this.#unlist(token);
    this.rankOf[token] = to;
    this.counts[from]!--;
    this.counts[to]!++;
    this.#list(token);
  }

  /** Until no rank holds more than `bound`, or (for the second bound) none less. */
  #moveAlongPaths(bound: number): void {
    const { counts } = this;
    for (;;) {
      if (!this.#unbalanced(bound)) return;
      this.#findPaths(bound);
      let target = none;
      for (let rank = 0; rank < this.ranks; rank++) {
        if (counts[rank]! < bound && (target === none || this.#distance[rank]! < this.#distance[target]!))
          target = rank;
      }
      // As many tokens as go the same way at the same cost.
      const cost = this.#distance[target]!;
      do this.#moveAlong(target);
      while (counts[target]! < bound && this.#pathCost(target, bound) === cost);
    }
  }

  #unbalanced(bound: number): boolean {
    let above = false;
    let below = false;
    for (let rank = 0; rank < this.ranks; rank++) {
      above ||= this.counts[rank]! > bound;
      below ||= this.counts[rank]! < bound;
    }
    return above && below;
  }

  /** Bellman-Ford: steps may gain once earlier moves have been paid for, cycles cannot. */
  #findPaths(bound: number): void {
    const { ranks, counts } = this;
    const distance = this.#distance;
    const before = this.#before;
    for (let rank = 0; rank < ranks; rank++) {
      distance[rank] = counts[rank]! > bound ? 0 : unreachable;
      before[rank] = none;
    }
    for (let changed = true; changed;) {
      changed = false;
      for (let from = 0; from < ranks; from++) {
        const reached = distance[from]!;
        if (reached === unreachable) continue;
        for (let to = 0; to < ranks; to++) {
          if (to === from) continue;
          const list = this.#cheapest(from, to);
          if (list < lossLists && reached + list - largestBenefit < distance[to]!) {
            distance[to] = reached + list - largestBenefit;
            before[to] = from;
            changed = true;
          }
        }
      }
    }
  }

  /** One token along every step of the path, the last step first, so that no token moves twice. */
  #moveAlong(target: number): void {
    for (let to = target, from = this.#before[to]!; from !== none; to = from, from = this.#before[to]!)
      this.#move(from, to);
  }

  /** What the path found last costs now; unreachable when its source has nothing more to give. */
  #pathCost(target: number, bound: number): number {
    let cost = 0;
    let to = target;
    for (let from = this.#before[to]!; from !== none; to = from, from = this.#before[to]!) {
      const list = this.#cheapest(from, to);
      if (list === lossLists) return unreachable;
      cost += list - largestBenefit;
    }
    return this.counts[to]! > bound ? cost : unreachable;
  }

  #moveDirectly(bound: number): void {
    const { ranks, counts } = this;
    while (this.#unbalanced(bound)) {
      let [source, target, least] = [none, none, lossLists];
      for (let from = 0; from < ranks; from++) {
        if (counts[from]! <= bound) continue;
        for (let to = 0; to < ranks; to++) {
          if (counts[to]! >= bound) continue;
          const list = this.#cheapest(from, to);
          if (list < least) [source, target, least] = [from, to, list];
        }
      }
      this.#move(source, target);
    }
  }

  /** Counting sort of the tokens by rank. */
  #group(tokens: number): void {
    const next = this.#distance;
    let start = 0;
    for (let rank = 0; rank < this.ranks; rank++) {
      next[rank] = start;
      start += this.counts[rank]!;
    }
    for (let token = 0; token < tokens; token++) this.order[next[this.rankOf[token]!]!++] = token;
  }
}
