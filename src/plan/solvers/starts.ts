import type { DeviceLayout } from '../device-layout.ts';
import { type ExpertSets, noExpert } from '../objective.ts';
import type { SeededRandom } from '../seeded-random.ts';
import { deviceSizes } from './balance.ts';

/** [N][N] tokens that used both experts of a pair; the diagonal is 0. */
export function coOccurrence({ experts, topK, count, members, weights }: ExpertSets): Float64Array {
  const together = new Float64Array(experts * experts);
  for (let set = 0; set < count; set++) {
    const base = set * topK;
    for (let i = 0; i < topK && members[base + i] !== noExpert; i++) {
      const row = members[base + i]! * experts;
      for (let j = 0; j < topK && members[base + j] !== noExpert; j++) {
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
export function affinityOwners(sets: ExpertSets, loads: Float64Array, layout: DeviceLayout): Uint16Array {
  const { experts } = sets;
  const { devices } = layout;
  const together = coOccurrence(sets);
  const owner = new Uint16Array(experts).fill(devices);
  const affinity = new Float64Array(experts);
  const sizes = deviceSizes(experts, layout);
  for (let device = 0; device < devices; device++) {
    for (let expert = 0; expert < experts; expert++) {
      affinity[expert] = 0;
      for (let other = 0; other < experts; other++) {
        if (owner[other] === devices) affinity[expert]! += together[expert * experts + other]!;
      }
    }
    for (let placed = 0; placed < sizes[device]!; placed++) {
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

/** Experts in order of id, in blocks of the devices' sizes. */
export function contiguousIn(experts: number, layout: DeviceLayout): Uint16Array {
  const owner = new Uint16Array(experts);
  let expert = 0;
  deviceSizes(experts, layout).forEach((size, device) => {
    owner.fill(device, expert, expert + size);
    expert += size;
  });
  return owner;
}

/** Random owners of the devices' sizes. */
export function randomOwners(experts: number, layout: DeviceLayout, random: SeededRandom): Uint16Array {
  const order = new Int32Array(experts).map((_, i) => i);
  random.shuffle(order);
  const block = contiguousIn(experts, layout);
  const owner = new Uint16Array(experts);
  order.forEach((expert, i) => {
    owner[expert] = block[i]!;
  });
  return owner;
}
