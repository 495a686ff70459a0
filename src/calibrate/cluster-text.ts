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
  const count = hosts?.count ?? 1;
  const link = (name: string, { gigabits, latencyUs, measured }: LinkUnits, more: string): string =>
    `${name}: { gigabitsPerSecond: ${rounded(gigabits)}, latencyUs: ${rounded(latencyUs)}${more}${measured} }`;
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
  if (ranks > count) lines.push(link('inside', inLinkUnits(exchange), ''));
  if (between !== undefined && count > 1) {
    lines.push(link('between', between, ', sharedBy: node'));
  }
  lines.push(`nodes: [{ count: ${count}, devices: ${ranks / count} }]`);
  return `${lines.join('\n')}\n`;
}

interface LinkUnits {
  gigabits: number;
  latencyUs: number;
  /** Field of the link with the times themselves; none where the link is only described. */
  measured: string;
}

function inLinkUnits({ bytesPerSecond, latencySeconds, samples }: ExchangeCost): LinkUnits {
  // A larger exchange that took less time bounds a smaller one: what disturbs only lengthens.
  const times = samples.map(({ bytes }, i) => {
    const shortest = Math.min(...samples.slice(i).map(({ seconds }) => seconds));
    return `[${bytes}, ${rounded(shortest * 1e6)}]`;
  });
  const measured = times.length === 0 ? '' : `, measured: [${times.join(', ')}]`;
  return { gigabits: (bytesPerSecond * 8) / 1e9, latencyUs: latencySeconds * 1e6, measured };
}

function linkBetween(hosts: DescribedHosts | MeasuredHosts, inside: ExchangeCost): LinkUnits {
  if ('exchange' in hosts) return inLinkUnits(hosts.exchange);
  const { gigabits, latencyUs } = inLinkUnits(inside);
  return {
    gigabits: Math.min(gigabits, hosts.gigabitsPerSecond),
    latencyUs: latencyUs + hosts.latencyUs,
    measured: '',
  };
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
