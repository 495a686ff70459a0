import type { SeededRandom } from '../seeded-random.ts';
import type { Partition } from './partition.ts';

/** A moment to stop at, the same on every thread; the clock is asked only now and then. */
export class Deadline {
  readonly #atMs: number;
  #asked: number = 0;

  /** @param budgetMs infinite for no deadline */
  constructor(budgetMs: number = Number.POSITIVE_INFINITY) {
    this.#atMs = Date.now() + budgetMs;
  }

  passed(): boolean {
    return Date.now() >= this.#atMs;
  }

  /** `passed`, looked up once in 256 calls. */
  passedSoon(): boolean {
    return this.#atMs !== Number.POSITIVE_INFINITY && (++this.#asked & 255) === 0 && this.passed();
  }
}

/** Makes the placement obey the load bound by the swaps that cost least per unit of load moved; false when it gets stuck. */
export function repairLoad(partition: Partition, loadBound: number): boolean {
  const { vertices, owner, loads, deviceLoads } = partition;
  for (let guard = 0; guard < 4 * vertices; guard++) {
    let fullest = 0;
    for (let device = 1; device < deviceLoads.length; device++) {
      if (deviceLoads[device]! > deviceLoads[fullest]!) fullest = device;
    }
    const excess = deviceLoads[fullest]! - loadBound;
    if (excess <= 0) return true;
    let bestScore = Number.POSITIVE_INFINITY;
    let bestFirst = -1;
    let bestSecond = -1;
    let bestDelta = 0;
    for (let first = 0; first < vertices; first++) {
      if (owner[first] !== fullest) continue;
      for (let second = 0; second < vertices; second++) {
        const moved = loads[first]! - loads[second]!;
        if (moved <= 0 || !partition.canSwap(first, second)) continue;
        if (partition.loadAfterSwap(first, second) >= deviceLoads[fullest]!) continue;
        if (deviceLoads[owner[second]!]! + moved > loadBound && moved > excess) continue;
        const delta = partition.swapDelta(first, second);
        const score = (delta + 1) / Math.min(moved, excess);
        if (score < bestScore) {
          bestScore = score;
          bestFirst = first;
          bestSecond = second;
          bestDelta = delta;
        }
      }
    }
    if (bestFirst < 0) return false;
    partition.swap(bestFirst, bestSecond, bestDelta);
  }
  return partition.largestLoad() <= loadBound;
}

/** First temperature in mean changes of cost, and first / last; chosen by trial on routing of several shapes. */
const startTemperature = 0.3;
const coolingRange = 30;

/**
 * Simulated annealing over swaps from a placement within the load bound; never leaves the bound and ends at the best
 * placement it saw.
 *
 * @param proposals swaps to try
 */
export function anneal(
  partition: Partition,
  loadBound: number,
  proposals: number,
  random: SeededRandom,
  deadline: Deadline = new Deadline(),
): void {
  const { vertices } = partition;
  const cooling = coolingRange ** (-1 / proposals);
  let temperature = typicalChange(partition, random) * startTemperature;
  let best = partition.cost;
  let bestPlacement = partition.placement();
  for (let proposal = 0; proposal < proposals && !deadline.passedSoon(); proposal++) {
    temperature *= cooling;
    const first = random.below(vertices);
    const second = random.below(vertices);
    if (!partition.canSwap(first, second) || partition.loadAfterSwap(first, second) > loadBound) continue;
    const delta = partition.swapDelta(first, second);
    if (delta > 0 && random.unit() >= Math.exp(-delta / temperature)) continue;
    partition.swap(first, second, delta);
    if (partition.cost < best) {
      best = partition.cost;
      bestPlacement = partition.placement();
    }
  }
  partition.reset(bestPlacement);
}

/** Mean absolute change of cost over random swaps, at least one token. */
function typicalChange(partition: Partition, random: SeededRandom): number {
  let sum = 0;
  let samples = 0;
  for (let attempt = 0; attempt < 200; attempt++) {
    const first = random.below(partition.vertices);
    const second = random.below(partition.vertices);
    if (!partition.canSwap(first, second)) continue;
    sum += Math.abs(partition.swapDelta(first, second));
    samples++;
  }
  return Math.max(1, samples === 0 ? 0 : sum / samples);
}

/** Takes improving swaps within the load bound, pair by pair, until a whole round over all pairs finds none. */
export function descend(partition: Partition, loadBound: number, deadline: Deadline = new Deadline()): void {
  const { vertices } = partition;
  const pairs = (vertices * (vertices - 1)) / 2;
  let first = 0;
  let second = 0;
  for (let sinceGain = 0; sinceGain < pairs && !deadline.passedSoon(); sinceGain++) {
    second++;
    if (second >= vertices) {
      first = first + 2 < vertices ? first + 1 : 0;
      second = first + 1;
    }
    if (!partition.canSwap(first, second) || partition.loadAfterSwap(first, second) > loadBound) continue;
    const delta = partition.swapDelta(first, second);
    // Prices that are no integers leave rounding errors; a gain of one is no gain.
    if (delta > -1e-6) continue;
    partition.swap(first, second, delta);
    sinceGain = 0;
  }
}
