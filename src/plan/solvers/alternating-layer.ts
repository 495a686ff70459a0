import type { AffinityItems } from '../affinity-items.ts';
import { devicePairs } from '../affinity-items.ts';
import { SeededRandom } from '../seeded-random.ts';
import { deviceSizes } from './balance.ts';
import { layoutOf } from '../device-layout.ts';
import { Deadline } from './local-search.ts';

export interface AlternatingTask {
  layer: number;
  items: AffinityItems;
  /** [N][N] tokens that used both experts */
  together: Float64Array;
  devices: number;
  seed: number;
  /** Infinite without a time limit. */
  budgetMs: number;
}

/** Not published: 1 each. */
const alpha = 1;
const beta = 1;
const gamma = 1;
const theta = 0.5;
const steps = 8;
const swapsPerStep = 64;

/** Algorithm 1 of the paper's fifth version for one layer (docs/method.md, the paper's problem); affinities are shares of their sums. */
export function solveAlternatingLayer({
  layer,
  items,
  together,
  devices,
  seed,
  budgetMs,
}: AlternatingTask): Uint16Array {
  const random = new SeededRandom(seed, layer);
  const { experts } = items;
  const loads = new Float64Array(experts);
  items.pairs.forEach((pairs, at) => (loads[at % experts]! += pairs));
  const sizes = deviceSizes(experts, layoutOf(devices, experts));
  let home = clusterItems(items, devices, random);
  let best: Uint16Array | undefined;
  let bestCost = Number.POSITIVE_INFINITY;
  const deadline = new Deadline(budgetMs);
  for (let step = 0; step < steps && (best === undefined || !deadline.passed()); step++) {
    const owner = placeExperts(items, home, together, loads, sizes);
    swapExperts(items, home, owner, loads, random);
    home = placeItems(items, owner, devices);
    const cost = costOf(items, owner, home, loads, devices);
    if (cost < bestCost) {
      bestCost = cost;
      best = owner;
    }
  }
  return best!;
}

/** Items by expert affinity: from spread-out seeds, each onto the unfilled device whose items route most like it. */
function clusterItems(
  { count, experts, tokens, pairs }: AffinityItems,
  devices: number,
  random: SeededRandom,
): Int32Array {
  const centres = new Float64Array(devices * experts);
  const filled = new Float64Array(devices);
  const room = tokens.reduce((sum, n) => sum + n, 0) / devices;
  const home = new Int32Array(count);
  const order = new Int32Array(count).map((_, item) => item);
  random.shuffle(order);
  order.forEach((item, turn) => {
    let best = -1;
    let bestScore = Number.NEGATIVE_INFINITY;
    for (let device = 0; device < devices; device++) {
      if (filled[device]! >= room) continue;
      let dot = 0;
      let norm = 0;
      for (let expert = 0; expert < experts; expert++) {
        const centre = centres[device * experts + expert]!;
        dot += centre * pairs[item * experts + expert]!;
        norm += centre * centre;
      }
      const score = turn < devices ? (turn === device ? 1 : 0) : dot / Math.sqrt(norm + 1);
      if (score > bestScore) {
        bestScore = score;
        best = device;
      }
    }
    home[item] = best < 0 ? 0 : best;
    filled[home[item]!]! += tokens[item]!;
    for (let expert = 0; expert < experts; expert++)
      centres[home[item]! * experts + expert]! += pairs[item * experts + expert]!;
  });
  return home;
}

/** [P][N] routed pairs of the items of each device. */
function homePairs({ count, experts, pairs }: AffinityItems, home: Int32Array, devices: number): Float64Array {
  const sums = new Float64Array(devices * experts);
  for (let item = 0; item < count; item++) {
    for (let expert = 0; expert < experts; expert++)
      sums[home[item]! * experts + expert]! += pairs[item * experts + expert]!;
  }
  return sums;
}

function placeExperts(
  items: AffinityItems,
  home: Int32Array,
  together: Float64Array,
  loads: Float64Array,
  sizes: Int32Array,
): Uint16Array {
  const { experts } = items;
  const devices = sizes.length;
  const fromItems = homePairs(items, home, devices);
  const meanLoad = loads.reduce((sum, load) => sum + load, 0) / devices;
  const owner = new Uint16Array(experts);
  const held = Array.from({ length: devices }, (): number[] => []);
  const deviceLoads = new Float64Array(devices);
  const order = Array.from(loads.keys()).sort((a, b) => loads[b]! - loads[a]! || a - b);
  for (const expert of order) {
    let all = 0;
    for (let other = 0; other < experts; other++) all += together[expert * experts + other]!;
    let best = -1;
    let bestScore = Number.NEGATIVE_INFINITY;
    for (let device = 0; device < devices; device++) {
      if (held[device]!.length >= sizes[device]!) continue;
      const toExperts = held[device]!.reduce((sum, other) => sum + together[expert * experts + other]!, 0);
      const score =
        (alpha * toExperts) / Math.max(1, all) +
        (beta * fromItems[device * experts + expert]!) / Math.max(1, loads[expert]!) -
        (gamma * deviceLoads[device]!) / Math.max(1, meanLoad);
      if (score > bestScore) {
        bestScore = score;
        best = device;
      }
    }
    owner[expert] = best;
    held[best]!.push(expert);
    deviceLoads[best]! += loads[expert]!;
  }
  return owner;
}

/** Random swaps, kept when they lower the cost. */
function swapExperts(
  items: AffinityItems,
  home: Int32Array,
  owner: Uint16Array,
  loads: Float64Array,
  random: SeededRandom,
): void {
  const devices = owner.reduce((most, device) => Math.max(most, device), 0) + 1;
  const fromItems = homePairs(items, home, devices);
  const all = Math.max(
    1,
    loads.reduce((sum, load) => sum + load, 0),
  );
  const cost = (): number => {
    const deviceLoads = new Float64Array(devices);
    let local = 0;
    owner.forEach((device, expert) => {
      deviceLoads[device]! += loads[expert]!;
      local += fromItems[device * loads.length + expert]!;
    });
    return theta * ((Math.max(...deviceLoads) * devices) / all) + (1 - theta) * (1 - local / all);
  };
  let current = cost();
  for (let i = 0; i < swapsPerStep; i++) {
    const a = random.below(owner.length);
    const b = random.below(owner.length);
    if (owner[a] === owner[b]) continue;
    const trade = (): void => {
      const kept = owner[a]!;
      owner[a] = owner[b]!;
      owner[b] = kept;
    };
    trade();
    const after = cost();
    if (after < current) current = after;
    else trade();
  }
}

/** Longest first, each onto the unfilled device with the highest affinity to the items and experts there. */
function placeItems(items: AffinityItems, owner: Uint16Array, devices: number): Int32Array {
  const { count, experts, tokens, pairs } = items;
  const toExperts = devicePairs(items, owner, devices);
  const centres = new Float64Array(devices * experts);
  const norms = new Float64Array(devices);
  const filled = new Float64Array(devices);
  const room = tokens.reduce((sum, n) => sum + n, 0) / devices;
  const home = new Int32Array(count);
  const order = Array.from(tokens.keys()).sort((a, b) => tokens[b]! - tokens[a]! || a - b);
  for (const item of order) {
    let own = 0;
    let sum = 0;
    for (let expert = 0; expert < experts; expert++) {
      own += pairs[item * experts + expert]! ** 2;
      sum += pairs[item * experts + expert]!;
    }
    let best = -1;
    let bestScore = Number.NEGATIVE_INFINITY;
    for (let device = 0; device < devices; device++) {
      if (filled[device]! >= room) continue;
      let dot = 0;
      for (let expert = 0; expert < experts; expert++)
        dot += centres[device * experts + expert]! * pairs[item * experts + expert]!;
      const score =
        (alpha * dot) / Math.sqrt(own * norms[device]! + 1) +
        (beta * toExperts[item * devices + device]!) / Math.max(1, sum);
      if (score > bestScore) {
        bestScore = score;
        best = device;
      }
    }
    home[item] = best < 0 ? 0 : best;
    const at = home[item]!;
    filled[at]! += tokens[item]!;
    norms[at] = 0;
    for (let expert = 0; expert < experts; expert++) {
      centres[at * experts + expert]! += pairs[item * experts + expert]!;
      norms[at]! += centres[at * experts + expert]! ** 2;
    }
  }
  return home;
}

/** theta x largest load / mean + (1 - theta) x share of routed pairs that leave their item's device. */
function costOf(
  items: AffinityItems,
  owner: Uint16Array,
  home: Int32Array,
  loads: Float64Array,
  devices: number,
): number {
  const sums = devicePairs(items, owner, devices);
  const all = Math.max(
    1,
    loads.reduce((sum, load) => sum + load, 0),
  );
  let local = 0;
  for (let item = 0; item < items.count; item++) local += sums[item * devices + home[item]!]!;
  const deviceLoads = new Float64Array(devices);
  owner.forEach((device, expert) => (deviceLoads[device]! += loads[expert]!));
  return theta * ((Math.max(...deviceLoads) * devices) / all) + (1 - theta) * (1 - local / all);
}
