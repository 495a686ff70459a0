import type { ExpertSets } from '../objective.ts';
import type { SeededRandom } from '../seeded-random.ts';

/** [N][N] tokens that used both experts of a pair; the diagonal is 0. */
function coOccurrence({ experts, topK, count, members, weights }: ExpertSets): Float64Array {
  const together = new Float64Array(experts * experts);
  for (let set = 0; set < count; set++) {
    const base = set * topK;
    for (let i = 0; i < topK; i++) {
      const row = members[base + i]! * experts;
      for (let j = 0; j < topK; j++) {
        if (i !== j) together[row + members[base + j]!]! += weights[set]!;
      }
    }
  }
  return together;
}

/**
 * Greedy clustering by affinity: device after device, from the unplaced expert with the most affinity to all unplaced ones,
 * grow by the expert with the highest normalised affinity to the group.
 *
 * @returns [N] owner
 */
export function affinityOwners(sets: ExpertSets, loads: Float64Array, devices: number): Uint16Array {
  const { experts } = sets;
  const together = coOccurrence(sets);
  const owner = new Uint16Array(experts).fill(devices);
  const affinity = new Float64Array(experts);
  const least = Math.floor(experts / devices);
  for (let device = 0; device < devices; device++) {
    const size = least + (device < experts % devices ? 1 : 0);
    for (let expert = 0; expert < experts; expert++) {
      affinity[expert] = 0;
      for (let other = 0; other < experts; other++) {
        if (owner[other] === devices) affinity[expert]! += together[expert * experts + other]!;
      }
    }
    for (let placed = 0; placed < size; placed++) {
      let best = -1;
      let bestScore = 0;
      for (let expert = 0; expert < experts; expert++) {
        if (owner[expert] !== devices) continue;
        const score = affinity[expert]! / (loads[expert]! + 1);
        if (best < 0 || score > bestScore) {
          best = expert;
          bestScore = score;
        }
      }
      owner[best] = device;
      if (placed === 0) affinity.fill(0);
      for (let expert = 0; expert < experts; expert++) affinity[expert]! += together[best * experts + expert]!;
    }
  }
  return owner;
}

/** Random owners of near-equal device sizes. */
export function randomOwners(experts: number, devices: number, random: SeededRandom): Uint16Array {
  const order = new Int32Array(experts).map((_, i) => i);
  random.shuffle(order);
  const owner = new Uint16Array(experts);
  order.forEach((expert, i) => {
    owner[expert] = i % devices;
  });
  return owner;
}
