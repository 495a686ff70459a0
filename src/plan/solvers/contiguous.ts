import type { PlacementSolver } from '../solver.ts';
import { contiguousIn } from './starts.ts';

/**
 * Experts in order of id, in blocks: what engines do without a plan. The first N % P devices own one more.
 *
 * @returns [N] owner of each expert in one layer
 */
export function contiguousOwners(experts: number, devices: number): Uint16Array {
  const least = Math.floor(experts / devices);
  const larger = experts % devices;
  const owner = new Uint16Array(experts);
  let expert = 0;
  for (let device = 0; device < devices; device++) {
    const size = least + (device < larger ? 1 : 0);
    owner.fill(device, expert, expert + size);
    expert += size;
  }
  return owner;
}

export const contiguousSolver: PlacementSolver = {
  name: 'contiguous',
  heeds: ['cluster'],
  async solve({ trace, devices, layout }) {
    const { layers, experts } = trace.model;
    const expertOwner = new Uint16Array(layers * experts);
    const owners = layout === undefined ? contiguousOwners(experts, devices) : contiguousIn(experts, layout);
    for (let layer = 0; layer < layers; layer++) expertOwner.set(owners, layer * experts);
    return { expertOwner, notes: [] };
  },
};
