/** What a cluster is: nodes of devices, and two classes of links. Knows nothing of models, plans or schedules. SI units. */

/** Seconds of an exchange by the bytes that pass the busiest end of a link, both ascending. */
export interface MeasuredTimes {
  bytes: number[];
  seconds: number[];
}

/** Alpha-beta cost of a link: a message takes latency + messageSeconds + bytes / bytesPerSecond. Or as it was measured. */
export interface Link {
  /** Bytes per second in each direction. */
  bytesPerSecond: number;
  /** Seconds from sender to receiver; messages sent at once share it. */
  latencySeconds: number;
  /** Seconds a link is taken by each message whatever its size; not shared. */
  messageSeconds: number;
  /** Of whole exchanges, in place of latency and rate; undefined where these are all that is known. */
  measured: MeasuredTimes | undefined;
}

/** Between the times measured in proportion, beyond the last at the rate of the last two. */
export function measuredSeconds({ bytes, seconds }: MeasuredTimes, size: number): number {
  const last = bytes.length - 1;
  if (size <= bytes[0]!) return seconds[0]!;
  if (last === 0) return (seconds[0]! * size) / bytes[0]!;
  let next = 1;
  while (next < last && bytes[next]! < size) next++;
  const share = (size - bytes[next - 1]!) / (bytes[next]! - bytes[next - 1]!);
  return seconds[next - 1]! + share * (seconds[next]! - seconds[next - 1]!);
}

export interface DeviceRates {
  /** Of matrix products; of attention's scores and values; of experts, whose products have few rows. */
  flopsPerSecond: number;
  attentionFlopsPerSecond: number;
  expertFlopsPerSecond: number;
  memoryBytesPerSecond: number;
  memoryBytes: number;
  /** Seconds every layer takes besides arithmetic and memory (kernel launches, bookkeeping). */
  layerSeconds: number;
  /** Seconds of bookkeeping per token on its own rank and layer, such as packing rows. */
  tokenSeconds: number;
  /** Seconds per token and layer of predicting its device and balancing slices, which every rank of a tensor group does for all its tokens. */
  predictSeconds: number;
}

/** Who shares a node's way out: all its devices one network card, or each device its own. */
export const portSharers = ['node', 'device'] as const;
export type PortSharer = (typeof portSharers)[number];

export interface ClusterNode {
  name: string;
  devices: number;
  device: DeviceRates;
  /** Per device. */
  inside: Link;
  between: Link;
  betweenSharedBy: PortSharer;
  /** Cores that the node's devices take turns on; undefined where every device computes on its own. */
  sharedCores: number | undefined;
}

export interface Cluster {
  name: string;
  nodes: ClusterNode[];
  /** Cores that all devices of all nodes take turns on: hosts that are processes of one machine. */
  sharedCores: number | undefined;
}

export const linkClasses = ['insideNode', 'betweenNodes'] as const;
export type LinkClass = (typeof linkClasses)[number];

export function deviceCount(cluster: Cluster): number {
  return cluster.nodes.reduce((sum, node) => sum + node.devices, 0);
}

/** [devices] node of each device: devices are numbered node by node. */
export function nodeOfDevices(cluster: Cluster): Int32Array {
  return Int32Array.from(cluster.nodes.flatMap((node, index) => Array.from({ length: node.devices }, () => index)));
}

/** The same cluster with some figures of its slowest link class replaced, which no measured times are of: between nodes, or inside the only one. */
export function withLink(cluster: Cluster, change: Partial<Link>): Cluster {
  const field = cluster.nodes.length > 1 ? 'between' : 'inside';
  return {
    ...cluster,
    nodes: cluster.nodes.map((node) => ({ ...node, [field]: { ...node[field], measured: undefined, ...change } })),
  };
}
