import type { Calibration } from './calibration.ts';

/** Hosts that the ranks stand for: processes of one machine behind links of this speed. */
export interface DescribedHosts {
  count: number;
  gigabitsPerSecond: number;
  latencyUs: number;
}

/**
 * A cluster file of what was measured: all ranks in one node, or spread over hosts whose links are given. A link adds its own latency to
 * that of the transport, and is no faster than the transport.
 *
 * @param title comment lines above it, such as the machine
 * @param memoryGB of a rank
 */
export function clusterText(
  { cores, ranks, transport, rates, predictSeconds, exchange }: Calibration,
  { title, memoryGB, hosts }: { title: string; memoryGB: number; hosts?: DescribedHosts },
): string {
  const gigabits = (exchange.bytesPerSecond * 8) / 1e9;
  const latencyUs = exchange.latencySeconds * 1e6;
  const count = hosts?.count ?? 1;
  const link = (name: string, speed: number, latency: number, more: string): string =>
    `${name}: { gigabitsPerSecond: ${rounded(speed)}, latencyUs: ${rounded(latency)}${more} }`;
  const described = count === 1 ? 'this machine' : `${count} hosts at ${hosts!.gigabitsPerSecond} Gbit/s, emulated`;
  const lines = [
    ...title.split('\n').map((line) => `# ${line}`),
    `name: ${described}, ${ranks} ranks over ${transport}`,
    `sharedCores: ${cores} # all ranks take turns on these`,
    'device:',
    `  gigaflops: ${rounded(rates.flopsPerSecond / 1e9)}`,
    `  attentionGigaflops: ${rounded(rates.attentionFlopsPerSecond / 1e9)}`,
    `  expertGigaflops: ${rounded(rates.expertFlopsPerSecond / 1e9)}`,
    `  memoryGBps: ${rounded(rates.memoryBytesPerSecond / 1e9)}`,
    `  memoryGB: ${rounded(memoryGB)}`,
    `  layerUs: ${rounded(rates.layerSeconds * 1e6)}`,
    `  tokenUs: ${rounded(rates.tokenSeconds * 1e6)}`,
    `  predictUs: ${rounded(predictSeconds * 1e6)}`,
  ];
  if (ranks > count) lines.push(link('inside', gigabits, latencyUs, ''));
  if (hosts !== undefined && count > 1) {
    const speed = Math.min(gigabits, hosts.gigabitsPerSecond);
    lines.push(link('between', speed, latencyUs + hosts.latencyUs, ', sharedBy: node'));
  }
  lines.push(`nodes: [{ count: ${count}, devices: ${ranks / count} }]`);
  return `${lines.join('\n')}\n`;
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
