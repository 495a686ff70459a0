import type { Plan } from '../plan/plan.ts';
import { contiguousOwners } from '../plan/solvers/contiguous.ts';
import type { ModelFacts } from './model-directory.ts';

/** What every engine does without a plan: experts in order of id, in equal blocks. Needs no trace. */
export function contiguousPlan(
  { config, fingerprint }: Pick<ModelFacts, 'config' | 'fingerprint'>,
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
