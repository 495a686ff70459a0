import { type AffinityItems, PaperObjective } from '../affinity-items.ts';
import { layoutOf } from '../device-layout.ts';
import { SeededRandom } from '../seeded-random.ts';
import { deviceSizes } from './balance.ts';
import { Deadline } from './local-search.ts';

export interface CrossEntropyTask {
  layer: number;
  items: AffinityItems;
  devices: number;
  seed: number;
  /** Infinite without a time limit. */
  budgetMs: number;
}

/** Not published; more samples and rounds gained nothing in trials. */
const theta = 0.5;
const rounds = 60;
const samples = 64;
const elite = 8;
const smoothing = 0.7;

/**
 * The cross-entropy method of the paper's first version for one layer: devices of items (R) and of experts (C) are drawn from
 * categorical distributions of their own, the distributions are refitted to the best samples, and so on. Samples of C are repaired to
 * equal device sizes.
 */
export function solveCrossEntropyLayer({ layer, items, devices, seed, budgetMs }: CrossEntropyTask): Uint16Array {
  const random = new SeededRandom(seed, layer);
  const { count, experts } = items;
  const objective = new PaperObjective(items, theta);
  const sizes = deviceSizes(experts, layoutOf(devices, experts));
  const ofItems = new Float64Array(count * devices).fill(1 / devices);
  const ofExperts = new Float64Array(experts * devices).fill(1 / devices);
  let best: Uint16Array | undefined;
  let bestCost = Number.POSITIVE_INFINITY;
  const deadline = new Deadline(budgetMs);
  for (let round = 0; round < rounds && (best === undefined || !deadline.passed()); round++) {
    const drawn = Array.from({ length: samples }, () => {
      const home = draw(ofItems, devices, random);
      const owner = drawOwners(ofExperts, sizes, random);
      return { home, owner, cost: objective.cost(home, owner, devices) };
    });
    drawn.sort((a, b) => a.cost - b.cost);
    if (drawn[0]!.cost < bestCost) {
      bestCost = drawn[0]!.cost;
      best = drawn[0]!.owner;
    }
    const chosen = drawn.slice(0, elite);
    refit(
      ofItems,
      chosen.map(({ home }) => home),
      devices,
    );
    refit(
      ofExperts,
      chosen.map(({ owner }) => owner),
      devices,
    );
  }
  return best!;
}

/** [I] one device per row of the distributions [I][P]. */
function draw(distribution: Float64Array, devices: number, random: SeededRandom): Uint16Array {
  return new Uint16Array(distribution.length / devices).map((_, row) =>
    pick(distribution, row * devices, devices, random),
  );
}

function pick(distribution: Float64Array, from: number, devices: number, random: SeededRandom): number {
  let left = random.unit();
  for (let device = 0; device < devices - 1; device++) {
    left -= distribution[from + device]!;
    if (left < 0) return device;
  }
  return devices - 1;
}

/** Experts in random order; one drawn to a full device takes the likeliest device with room. */
function drawOwners(distribution: Float64Array, sizes: Int32Array, random: SeededRandom): Uint16Array {
  const devices = sizes.length;
  const room = sizes.slice();
  const order = new Int32Array(distribution.length / devices).map((_, expert) => expert);
  random.shuffle(order);
  const owner = new Uint16Array(order.length);
  for (const expert of order) {
    let device = pick(distribution, expert * devices, devices, random);
    if (room[device] === 0) {
      device = -1;
      for (let other = 0; other < devices; other++) {
        if (room[other]! === 0) continue;
        if (device < 0 || distribution[expert * devices + other]! > distribution[expert * devices + device]!)
          device = other;
      }
    }
    owner[expert] = device;
    room[device]!--;
  }
  return owner;
}

/** Moves the distributions towards the frequencies among the chosen samples. */
function refit(distribution: Float64Array, chosen: Uint16Array[], devices: number): void {
  for (let at = 0; at < distribution.length; at++) distribution[at]! *= 1 - smoothing;
  for (const sample of chosen) {
    sample.forEach((device, row) => (distribution[row * devices + device]! += smoothing / chosen.length));
  }
}
