import type { Plan } from './plan.ts';
import { contiguousOwners } from './solvers/contiguous.ts';

/** What every engine does without a plan: experts in order of id, in equal blocks. Needs no trace. */
export function contiguousPlan(
  {
    config,
    fingerprint,
  }: { config: Pick<Plan, 'layers' | 'experts' | 'topK' | 'vocabularySize'>; fingerprint: string },
  devices: number,
): Plan {
  const { layers, experts, topK, vocabularySize } = config;
  const expertOwner = new Uint16Array(layers * experts);
  const owners = contiguousOwners(experts, devices);
  for (let layer = 0; layer < layers; layer++) expertOwner.set(owners, layer * experts);
  return {
    version: 1,
    modelFingerprint: fingerprint,
    devices,
    layers,
    experts,
    topK,
    vocabularySize,
    solver: 'contiguous',
    expertOwner,
    replicas: Array.from({ length: layers }, () => Array.from({ length: devices }, () => [])),
    prediction: undefined,
    promise: undefined,
  };
}
