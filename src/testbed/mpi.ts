/** How commands get onto the hosts of a testbed, OpenMPI's among them: mpirun starts its daemons through an agent, as through ssh. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parameterWords, rankParameters } from '../comm/mpi-parameters.ts';
import { hostAddress, hostInterface, hostNamespace } from './names.ts';
import { totalRanks, type Topology } from './topology.ts';

export interface LaunchFiles {
  /** A script that takes a host (address, name or number) and a command, like ssh. */
  agent: string;
  /** Addresses with their slots. */
  hostfile: string;
}

export function launchFilesIn(directory: string): LaunchFiles {
  return { agent: join(directory, 'agent'), hostfile: join(directory, 'hosts') };
}

export function writeLaunchFiles(topology: Topology, files: LaunchFiles): void {
  writeFileSync(files.agent, agentScript(topology), { mode: 0o700 });
  writeFileSync(files.hostfile, hostfileText(topology), { mode: 0o600 });
}

/**
 * Arguments for `mpirun`, before the program: every rank of the topology, TCP between hosts over the shaped links only, shared
 * memory inside. mpirun has to run on a host itself, since its daemons connect back to it.
 */
export function mpirunArguments(topology: Topology, { agent, hostfile }: LaunchFiles): string[] {
  return [
    ...['-np', String(totalRanks(topology)), '--hostfile', hostfile, '--map-by', 'slot'],
    // Hosts share the machine's cores: bound, the ranks of all of them would meet on the first.
    ...['--bind-to', 'none', ...parameterWords(rankParameters)],
    ...['--mca', 'plm_rsh_agent', agent, '--mca', 'plm_rsh_no_tree_spawn', '1'],
    ...['--mca', 'pml', 'ob1', '--mca', 'btl', 'self,vader,tcp'],
    ...['--mca', 'btl_tcp_if_include', hostInterface, '--mca', 'oob_tcp_if_include', hostInterface],
  ];
}

/**
 * For programs that start mpirun themselves when they run on a testbed: the arguments above without the number of ranks;
 * undefined elsewhere.
 */
export function mpirunArgumentsHere(environment: Record<string, string | undefined>): string[] | undefined {
  const words = environment.SMOE_TESTBED_MPIRUN?.split(' ');
  const at = words?.indexOf('-np') ?? -1;
  return at === -1 ? words : words!.toSpliced(at, 2);
}

/** Ranks of each host of the testbed that this process runs on; undefined elsewhere. */
export function hostSlotsHere({ SMOE_TESTBED_HOSTFILE }: Record<string, string | undefined>): number[] | undefined {
  if (SMOE_TESTBED_HOSTFILE === undefined) return undefined;
  const text = readFileSync(SMOE_TESTBED_HOSTFILE, 'utf8');
  return [...text.matchAll(/slots=(\d+)/g)].map(([, slots]) => Number(slots));
}

/** The argument list that runs `command` on a host, under the host's name. */
export function onHost(topology: Topology, host: number, command: string[]): string[] {
  return onNamespace(hostNamespace(topology.name, host), command);
}

/** What a command on the testbed finds in its environment. */
export function testbedEnvironment(topology: Topology, files: LaunchFiles): Record<string, string> {
  const hosts = [...topology.hosts.keys()];
  return {
    SMOE_TESTBED: topology.name,
    SMOE_TESTBED_HOSTS: hosts.map((host) => hostNamespace(topology.name, host)).join(' '),
    SMOE_TESTBED_ADDRESSES: hosts.map(hostAddress).join(' '),
    SMOE_TESTBED_RANKS: String(totalRanks(topology)),
    SMOE_TESTBED_INTERFACE: hostInterface,
    SMOE_TESTBED_AGENT: files.agent,
    SMOE_TESTBED_HOSTFILE: files.hostfile,
    SMOE_TESTBED_MPIRUN: mpirunArguments(topology, files).join(' '),
    OMPI_ALLOW_RUN_AS_ROOT: '1',
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
  };
}

export function hostfileText({ hosts }: Topology): string {
  return hosts.map(({ ranks }, host) => `${hostAddress(host)} slots=${ranks}\n`).join('');
}

export function agentScript({ name, hosts }: Topology): string {
  const cases = [...hosts.keys()].map((host) => {
    const namespace = hostNamespace(name, host);
    return `  ${hostAddress(host)}|${namespace}|${host}) host=${namespace} ;;\n`;
  });
  return `#!/bin/sh
# Runs a command on a host of the testbed ${name}, as ssh would: agent HOST COMMAND...
PATH="$PATH:/usr/sbin:/sbin"
case "$1" in
${cases.join('')}  *) echo "no host $1 in the testbed ${name}" >&2; exit 255 ;;
esac
shift
exec ${onNamespace('"$host"', ['sh', '-c', '"$*"'], "'").join(' ')}
`;
}

/** A namespace of host names besides the one of the network, so that `hostname` tells the hosts apart. */
function onNamespace(namespace: string, command: string[], quote = ''): string[] {
  const rename = `${quote}echo "$0" >/proc/sys/kernel/hostname && exec "$@"${quote}`;
  return ['ip', 'netns', 'exec', namespace, 'unshare', '--uts', 'sh', '-c', rename, namespace, ...command];
}
