import { ExitStatus, SmoeError } from '../errors.ts';
import { type Cluster, deviceCount, nodeOfDevices } from './cluster.ts';

/** Throws CLUSTER_TOO_FEW_DEVICES unless every rank has a device of its own. */
export function assertEnoughDevices(cluster: Cluster, ranks: number): void {
  const devices = deviceCount(cluster);
  if (ranks <= devices) return;
  throw new SmoeError(
    'CLUSTER_TOO_FEW_DEVICES',
    `${cluster.name}: nodes hold ${devices} devices, ${ranks} ranks need one each`,
    {
      hint: `use at most ${devices} ranks, or describe more devices`,
      exitStatus: ExitStatus.noFeasiblePlan,
    },
  );
}

/**
 * Throws CLUSTER_MEMORY, naming the first device that cannot hold what its rank has to keep. Rank r lives on device r.
 *
 * @param needed [ranks] bytes
 */
export function assertMemoryHolds(cluster: Cluster, needed: Float64Array): void {
  const nodes = nodeOfDevices(cluster);
  needed.forEach((bytes, rank) => {
    const { name, device } = cluster.nodes[nodes[rank]!]!;
    if (bytes <= device.memoryBytes) return;
    const gigabytes = (value: number): string => `${(value / 1e9).toPrecision(3)} GB`;
    throw new SmoeError(
      'CLUSTER_MEMORY',
      `${cluster.name}: device ${rank} (${name}): memoryGB: ${gigabytes(device.memoryBytes)} cannot hold the ${gigabytes(bytes)} of weights of its rank`,
      { hint: 'use more ranks, fewer replicas, or devices with more memory', exitStatus: ExitStatus.noFeasiblePlan },
    );
  });
}
