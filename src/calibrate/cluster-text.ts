import type { Calibration } from './calibration.ts';
import type { ExchangeCost } from './exchange-cost.ts';

/** Hosts that the ranks stand for: processes of one machine behind links of this speed. */
export interface DescribedHosts {
  count: number;
  gigabitsPerSecond: number;
  latencyUs: number;
}

/** Hosts whose exchanges were measured, all ranks sending at once. */
export interface MeasuredHosts {
  count: number;
  exchange: ExchangeCost;
}

/**
 * A cluster file of what was measured: all ranks in one node, or spread over hosts whose links are given or were measured. A link that is
 * given adds its own latency to that of the transport, and is no faster than the transport.
 *
 * @param title comment lines above it, such as the machine
 * @param memoryGB of a rank
 */
export function clusterText(
  { cores, ranks, transport, rates, predictSeconds, exchange, network }: Calibration,
  { title, memoryGB, hosts = network }: { title: string; memoryGB: number; hosts?: DescribedHosts | MeasuredHosts },
): string {
  const { gigabits, latencyUs } = inLinkUnits(exchange);
  const count = hosts?.count ?? 1;
  const link = (name: string, speed: number, latency: number, more: string): string =>
    `${name}: { gigabitsPerSecond: ${rounded(speed)}, latencyUs: ${rounded(latency)}${more} }`;
  const between = hosts && linkBetween(hosts, exchange);
  const described =
    count === 1 ? 'this machine' : `${count} hosts at ${rounded(between!.gigabits)} Gbit/s on one machine`;
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
  if (between !== undefined && count > 1) {
    lines.push(link('between', between.gigabits, between.latencyUs, ', sharedBy: node'));
  }
  lines.push(`nodes: [{ count: ${count}, devices: ${ranks / count} }]`);
  return `${lines.join('\n')}\n`;
}

interface LinkUnits {
  gigabits: number;
  latencyUs: number;
}

function inLinkUnits({ bytesPerSecond, latencySeconds }: ExchangeCost): LinkUnits {
  return { gigabits: (bytesPerSecond * 8) / 1e9, latencyUs: latencySeconds * 1e6 };
}

function linkBetween(hosts: DescribedHosts | MeasuredHosts, inside: ExchangeCost): LinkUnits {
  if ('exchange' in hosts) return inLinkUnits(hosts.exchange);
  const { gigabits, latencyUs } = inLinkUnits(inside);
  return { gigabits: Math.min(gigabits, hosts.gigabitsPerSecond), latencyUs: latencyUs + hosts.latencyUs };
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
