import type { Plan } from '../../src/plan/plan.ts';

/** A plan of given owners and copies, alike in all layers, for a model of no particular weights. */
export function planOf(
  owners: number[],
  { layers = 1, topK = 2, copies = [] as number[][] }: { layers?: number; topK?: number; copies?: number[][] } = {},
): Plan {
  const devices = Math.max(...owners) + 1;
  const onDevices = Array.from({ length: devices }, (_, device) => copies[device] ?? []);
  return {
    version: 1,
    modelFingerprint: 'any model',
    devices,
    layers,
    experts: owners.length,
    topK,
    vocabularySize: 0,
    solver: 'by hand',
    expertOwner: Uint16Array.from({ length: layers * owners.length }, (_, at) => owners[at % owners.length]!),
    replicas: Array.from({ length: layers }, () => onDevices),
    prediction: undefined,
    promise: undefined,
  };
}
