import { type Cluster, type ClusterNode, nodeOfDevices } from '../cluster/cluster.ts';
import { ExitStatus, SmoeError } from '../errors.ts';
import { type DeviceDescription, layoutOf } from './device-layout.ts';
import { deviceSizes } from './solvers/balance.ts';

/** What a model's weights take; without it memory is not looked at. */
export interface WeightBytes {
  layers: number;
  /** One expert of one layer. */
  expert: number;
  /** What every device holds besides experts. */
  shared: number;
}

/** A row to another node costs at most so many rows inside one: beyond that only the former count. */
const highestPrice = 100;

/**
 * A cluster as solvers see it. Prices: seconds that a row takes between nodes over seconds inside, on the slowest link, a node's
 * devices sharing its way out where they do. Speeds: the devices' arithmetic rates. Slots: experts per layer that fit beside
 * everything else in memory, where some device cannot hold an even share and its copies.
 */
export function clusterDevices(
  cluster: Cluster,
  experts: number,
  replicasPerDevice: number,
  weights: WeightBytes | undefined,
): DeviceDescription {
  const nodeIndex = nodeOfDevices(cluster);
  const ofDevice = Array.from(nodeIndex, (node) => cluster.nodes[node]!);
  const speeds = ofDevice.map(({ device }) => device.flopsPerSecond);
  const slots = weights === undefined ? undefined : slotsOf(cluster, ofDevice, replicasPerDevice, weights);
  const even = speeds.every((speed) => speed === speeds[0]);
  const evenShare = Math.ceil(experts / ofDevice.length);
  const short = slots?.some((room) => room < evenShare) ?? false;
  return {
    // Without two devices in any node there is nothing inside, and every remote device costs the same.
    ...(cluster.nodes.length === 1 || cluster.nodes.every(({ devices }) => devices === 1)
      ? {}
      : { nodeOf: nodeIndex, innerPrice: 1, outerPrice: outerPrice(cluster) }),
    ...(even ? {} : { speeds }),
    ...(even && !short ? {} : { expertSlots: usefulSlots(slots, speeds, experts, replicasPerDevice) }),
  };
}

function outerPrice({ nodes }: Cluster): number {
  const inside = Math.max(...nodes.map((node) => (node.devices > 1 ? 1 / node.inside.bytesPerSecond : 0)));
  const between = Math.max(...nodes.map(secondsPerByteOut));
  return Math.min(highestPrice, Math.max(1, between / inside));
}

function secondsPerByteOut({ between, betweenSharedBy, devices }: ClusterNode): number {
  return (betweenSharedBy === 'node' ? devices : 1) / between.bytesPerSecond;
}

function slotsOf(
  { name }: Cluster,
  ofDevice: ClusterNode[],
  replicasPerDevice: number,
  { layers, expert, shared }: WeightBytes,
): number[] {
  return ofDevice.map(({ name: node, device: { memoryBytes } }, device) => {
    const slots = Math.floor((memoryBytes - shared) / (layers * expert)) - replicasPerDevice;
    if (slots >= 1) return slots;
    const gigabytes = (bytes: number): string => `${(bytes / 1e9).toPrecision(3)} GB`;
    const copies = replicasPerDevice > 0 ? ` beside ${replicasPerDevice} copies` : '';
    throw new SmoeError(
      'PLAN_INFEASIBLE',
      `${name}: device ${device} (${node}): memoryGB: ${gigabytes(memoryBytes)} cannot hold one expert per layer${copies}, ${gigabytes(shared + layers * expert * (1 + replicasPerDevice))}`,
      { hint: 'use devices with more memory, or fewer replicas', exitStatus: ExitStatus.noFeasiblePlan },
    );
  });
}

/**
 * Slots near what each device should own: in proportion to its speed, as far as memory goes, with a quarter to spare. Empty places far
 * beyond that only slow the search down.
 */
function usefulSlots(
  slots: number[] | undefined,
  speeds: number[],
  experts: number,
  replicasPerDevice: number,
): number[] {
  const most = speeds.map((_, device) => Math.min(slots?.[device] ?? experts, experts - replicasPerDevice));
  const total = most.reduce((sum, room) => sum + room, 0);
  if (total < experts) return most;
  const target = deviceSizes(experts, layoutOf(speeds.length, experts, { expertSlots: most, speeds }));
  return Array.from(target, (wanted, device) =>
    Math.max(1, Math.min(most[device]!, wanted + Math.max(1, Math.ceil(wanted / 4)))),
  );
}
