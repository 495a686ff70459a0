/** The steps that build a testbed, as data: written down and tested here, carried out in execute.ts. */
import {
  addressPrefixLength,
  bridgeName,
  hostAddress,
  hostInterface,
  hostNamespace,
  portName,
  switchNamespace,
} from './names.ts';
import type { RelayLink } from './relay-protocol.ts';
import type { Topology } from './topology.ts';

/** How delay is made: `relay` is this project's own process (relay.ts), for kernels without netem. */
export type LatencyMechanism = 'none' | 'netem' | 'relay';

export type Step =
  /** `undo` takes back what the command made and everything later steps put inside it. */
  | { kind: 'command'; argv: string[]; undo?: string[] }
  /** Starts the relay in `namespace`, where it makes one pair of TAP devices per link. */
  | { kind: 'relay'; namespace: string; links: RelayLink[] };

/** Longest Ethernet frame on the links, in bytes. */
const frameBytes = 1514;
/** What a queue in front of a link holds, as a switch port does. */
const queueBytes = 1_000_000;

/** Namespaces first, then the bridge, then one link per host, then what slows the links down. */
export function planTestbed(topology: Topology, latency: LatencyMechanism): Step[] {
  const { name, hosts } = topology;
  const network = switchNamespace(name);
  const steps: Step[] = [addNamespace(network)];
  for (const host of hosts.keys()) steps.push(addNamespace(hostNamespace(name, host)));
  steps.push(
    command('ip', '-n', network, 'link', 'add', 'name', bridgeName, 'type', 'bridge'),
    command('ip', '-n', network, 'link', 'set', 'dev', bridgeName, 'up'),
  );
  if (latency === 'relay') steps.push({ kind: 'relay', namespace: network, links: relayLinks(topology) });

  for (const [host, { rateMbit, latencyUs }] of hosts.entries()) {
    const namespace = hostNamespace(name, host);
    const port = portName(host);
    steps.push(
      latency === 'relay'
        ? command('ip', '-n', network, 'link', 'set', 'dev', tapName(host), 'netns', namespace, 'name', hostInterface)
        : command(
            'ip',
            '-n',
            network,
            'link',
            'add',
            'name',
            port,
            'type',
            'veth',
            'peer',
            'name',
            hostInterface,
            'netns',
            namespace,
          ),
      command('ip', '-n', network, 'link', 'set', 'dev', port, 'master', bridgeName),
      command(
        'ip',
        '-n',
        namespace,
        'address',
        'add',
        `${hostAddress(host)}/${addressPrefixLength}`,
        'dev',
        hostInterface,
      ),
    );
    if (rateMbit !== null) {
      steps.push(...shapeRate(namespace, hostInterface, rateMbit), ...shapeRate(network, port, rateMbit));
    }
    // A leaf of htb orders and limits its queue; netem takes that place.
    const parent = rateMbit === null ? ['root'] : ['parent', '1:10'];
    if (latency === 'netem' && latencyUs > 0) {
      const packets = netemPackets(rateMbit, latencyUs);
      steps.push(queue(namespace, hostInterface, parent, ['netem', 'limit', `${packets}`, 'delay', `${latencyUs}us`]));
    } else if (rateMbit !== null) {
      steps.push(queue(namespace, hostInterface, parent, ['bfifo', 'limit', `${queueBytes}`]));
    }
    if (rateMbit !== null) steps.push(queue(network, port, parent, ['bfifo', 'limit', `${queueBytes}`]));
    steps.push(
      command('ip', '-n', network, 'link', 'set', 'dev', port, 'up'),
      command('ip', '-n', namespace, 'link', 'set', 'dev', 'lo', 'up'),
      command('ip', '-n', namespace, 'link', 'set', 'dev', hostInterface, 'up'),
    );
  }
  return steps;
}

/** One line per step, as a shell would take it. */
export function describeSteps(steps: Step[]): string[] {
  return steps.map((step) =>
    step.kind === 'command'
      ? step.argv.join(' ')
      : `(relay in ${step.namespace}) ${step.links.map(({ host, port, latencyUs }) => `${host}=${port}:${latencyUs}us`).join(' ')}`,
  );
}

/** The host's end of a link before it moves to the host's namespace. */
function tapName(host: number): string {
  return `host${host}`;
}

function relayLinks({ hosts }: Topology): RelayLink[] {
  return hosts.map(({ rateMbit, latencyUs }, host) => ({
    host: tapName(host),
    port: portName(host),
    rateMbit,
    latencyUs,
  }));
}

function addNamespace(namespace: string): Step {
  return { kind: 'command', argv: ['ip', 'netns', 'add', namespace], undo: ['ip', 'netns', 'del', namespace] };
}

/**
 * One htb class for all that leaves `device`. Its bucket is what the link carries in 100 us, two frames at least: smaller, and a
 * late timer costs rate; larger, and short messages pass faster than the link.
 */
function shapeRate(namespace: string, device: string, rateMbit: number): Step[] {
  const rate = `${Math.round(rateMbit * 1000)}kbit`;
  const burst = `${Math.max(2 * frameBytes, Math.round((rateMbit * 1e6 * 100e-6) / 8))}`;
  return [
    queue(namespace, device, ['root'], ['htb', 'default', '10'], '1:'),
    command(
      ...['tc', '-n', namespace, 'class', 'add', 'dev', device, 'parent', '1:', 'classid', '1:10', 'htb'],
      ...['rate', rate, 'ceil', rate, 'burst', burst, 'cburst', burst, 'quantum', `${frameBytes}`],
    ),
  ];
}

function queue(namespace: string, device: string, parent: string[], discipline: string[], handle = '10:'): Step {
  return command('tc', '-n', namespace, 'qdisc', 'add', 'dev', device, ...parent, 'handle', handle, ...discipline);
}

/** Enough for what is under way during the delay, even in small packets, and for one queue. */
function netemPackets(rateMbit: number | null, latencyUs: number): number {
  const inFlightBytes = ((rateMbit ?? 10_000) * latencyUs) / 8;
  return Math.ceil((inFlightBytes + queueBytes) / 500);
}

function command(...argv: string[]): Step {
  return { kind: 'command', argv };
}
