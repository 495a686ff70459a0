/**
 * Which hosts a testbed has and what their links are like. A host is one network namespace; the ranks of one host share its
 * memory, ranks of different hosts meet over the shaped links. Knows nothing of namespaces, commands or processes.
 */
import { ExitStatus, SmoeError } from '../errors.ts';

export interface HostLink {
  /** Ranks that run on this host. */
  ranks: number;
  /** Rate of the host's link, each way, in Mbit/s; null leaves it as fast as the machine is. */
  rateMbit: number | null;
  /** One-way delay of what this host sends, in microseconds. */
  latencyUs: number;
}

export interface Topology {
  name: string;
  hosts: HostLink[];
}

export const topologyLimits = { hosts: 64, ranksPerHost: 64, rateMbit: 100_000, latencyUs: 1_000_000 } as const;

const namePattern = /^[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?$/;

export interface HomogeneousOptions {
  name?: string;
  hosts: number;
  /** No limit when null or not given. */
  rateMbit?: number | null;
  latencyUs?: number;
  /** 1 when not given: every rank on a host of its own. */
  ranksPerHost?: number;
}

/** Equal hosts on equal links. */
export function homogeneous(options: HomogeneousOptions): Topology {
  const { hosts, rateMbit = null, latencyUs = 0, ranksPerHost = 1 } = options;
  if (!Number.isInteger(hosts) || hosts < 2 || hosts > topologyLimits.hosts) throw badHostCount(hosts);
  return validateTopology({
    name: options.name ?? 'default',
    hosts: Array.from({ length: hosts }, () => ({ ranks: ranksPerHost, rateMbit, latencyUs })),
  });
}

export interface HeterogeneousOptions {
  name?: string;
  hosts: { ranks: number; rateMbit?: number | null; latencyUs?: number }[];
}

/** Hosts of several ranks, fast inside (shared memory) and slow between, each with its own link. */
export function heterogeneous(options: HeterogeneousOptions): Topology {
  return validateTopology({
    name: options.name ?? 'default',
    hosts: options.hosts.map(({ ranks, rateMbit = null, latencyUs = 0 }) => ({ ranks, rateMbit, latencyUs })),
  });
}

/** Returns the topology when every part of it can be built; throws what is wrong with it otherwise. */
export function validateTopology(topology: Topology): Topology {
  validateName(topology.name);
  const { hosts } = topology;
  if (hosts.length < 2 || hosts.length > topologyLimits.hosts) throw badHostCount(hosts.length);
  for (const [index, { ranks, rateMbit, latencyUs }] of hosts.entries()) {
    if (!Number.isInteger(ranks) || ranks < 1 || ranks > topologyLimits.ranksPerHost) {
      throw badTopology(
        'TESTBED_RANKS',
        `host ${index} has ${ranks} ranks`,
        `give 1 to ${topologyLimits.ranksPerHost}`,
      );
    }
    if (rateMbit !== null && !(rateMbit >= 1 && rateMbit <= topologyLimits.rateMbit)) {
      throw badTopology('TESTBED_RATE', `host ${index} has a link of ${rateMbit} Mbit/s`, rateHint);
    }
    if (!(latencyUs >= 0 && latencyUs <= topologyLimits.latencyUs)) {
      throw badTopology('TESTBED_LATENCY', `host ${index} has a latency of ${latencyUs} us`, latencyHint);
    }
  }
  return topology;
}

export function validateName(name: string): string {
  if (namePattern.test(name)) return name;
  throw badTopology(
    'TESTBED_NAME',
    `${JSON.stringify(name)} cannot name a testbed`,
    'use 1 to 20 lower-case letters, digits and dashes, no dash at either end',
  );
}

const rateHint = `write 1mbit to ${topologyLimits.rateMbit / 1000}gbit, or none for no limit`;
const latencyHint = `write 0 to ${topologyLimits.latencyUs / 1e6}s, such as 100us or 2ms`;

/** `100mbit`, `2.5gbit` or `none`, in Mbit/s; null for none. */
export function parseRate(text: string): number | null {
  if (text === 'none') return null;
  const [, digits, unit] = /^(\d+(?:\.\d+)?)\s*([mg])bit(?:\/s)?$/i.exec(text) ?? [];
  const rateMbit = Number(digits) * (unit?.toLowerCase() === 'g' ? 1000 : 1);
  if (rateMbit >= 1 && rateMbit <= topologyLimits.rateMbit) return rateMbit;
  throw badTopology('TESTBED_RATE', `${JSON.stringify(text)} is not a rate`, rateHint);
}

/** `0`, `100us`, `0.5ms` or `1s`, in microseconds. */
export function parseLatency(text: string): number {
  if (text === '0') return 0;
  const [, digits, unit] = /^(\d+(?:\.\d+)?)\s*(us|ms|s)$/.exec(text) ?? [];
  const latencyUs = Number(digits) * { us: 1, ms: 1e3, s: 1e6 }[unit ?? 'us']!;
  if (latencyUs >= 0 && latencyUs <= topologyLimits.latencyUs) return latencyUs;
  throw badTopology('TESTBED_LATENCY', `${JSON.stringify(text)} is not a latency`, latencyHint);
}

export function totalRanks({ hosts }: Topology): number {
  return hosts.reduce((sum, { ranks }) => sum + ranks, 0);
}

/** What a path from one host to another should measure: the slower of both links, the delays of both ways. */
export function nominalPath({ hosts }: Topology, from: number, to: number): { rateMbit: number | null; rttUs: number } {
  const rates = [hosts[from]!.rateMbit, hosts[to]!.rateMbit].filter((rate) => rate !== null);
  return {
    rateMbit: rates.length === 0 ? null : Math.min(...rates),
    rttUs: hosts[from]!.latencyUs + hosts[to]!.latencyUs,
  };
}

function badHostCount(hosts: number): SmoeError {
  return badTopology('TESTBED_HOSTS', `a testbed cannot have ${hosts} hosts`, `give 2 to ${topologyLimits.hosts}`);
}

function badTopology(code: string, message: string, hint: string): SmoeError {
  return new SmoeError(code, message, { hint, exitStatus: ExitStatus.usage });
}
