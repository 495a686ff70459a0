/** What a testbed needs of the machine, asked before anything is changed; every probe leaves nothing behind. */
import { existsSync } from 'node:fs';
import { SmoeError } from '../errors.ts';
import type { LatencyMechanism } from './commands.ts';
import { tryCommand, type CommandResult } from './system.ts';
import type { Topology } from './topology.ts';

/** What a machine offers; an interface so that tests can describe machines that are not there. */
export interface Machine {
  platform: string;
  root: boolean;
  tunDevice: boolean;
  run(argv: string[]): CommandResult;
}

const packages: Record<string, string> = { ip: 'iproute2', tc: 'iproute2', unshare: 'util-linux' };

export function thisMachine(): Machine {
  return {
    platform: process.platform,
    root: process.getuid?.() === 0,
    tunDevice: existsSync('/dev/net/tun'),
    run: tryCommand,
  };
}

/** Root, `ip` and namespaces: what looking at and removing testbeds needs. */
export function requireNamespaces(machine: Machine): void {
  if (machine.platform !== 'linux') {
    throw new SmoeError('TESTBED_PLATFORM', `a testbed needs Linux, not ${machine.platform}`);
  }
  if (!machine.root) {
    throw new SmoeError('TESTBED_ROOT', 'network namespaces and traffic shaping need root', {
      hint: 'run it with sudo',
    });
  }
  for (const tool of ['ip', 'tc', 'unshare']) {
    if (machine.run([tool, '--version']).status === undefined && machine.run([tool, '-V']).status === undefined) {
      throw new SmoeError('TESTBED_TOOL_MISSING', `${tool} is not installed`, {
        hint: `install the package ${packages[tool]}: apt-get install ${packages[tool]}`,
      });
    }
  }
  const { status, stderr } = machine.run(['unshare', '--net', '--uts', 'true']);
  if (status !== 0) {
    throw new SmoeError('TESTBED_NAMESPACES', `this machine makes no network namespace: ${stderr.trim()}`, {
      hint: 'in a container, give it CAP_SYS_ADMIN and CAP_NET_ADMIN',
    });
  }
}

/** All that `topology` needs; returns how its delay will be made. */
export function requireTopology(topology: Topology, machine: Machine): LatencyMechanism {
  requireNamespaces(machine);
  if (topology.hosts.some(({ rateMbit }) => rateMbit !== null) && !hasDiscipline(machine, ['htb'])) {
    throw new SmoeError('TESTBED_NO_RATE', 'this kernel cannot limit rates: it has no htb queueing discipline', {
      hint: 'load the module sch_htb, or give --rate none',
    });
  }
  if (topology.hosts.every(({ latencyUs }) => latencyUs === 0)) return 'none';
  if (hasDiscipline(machine, ['netem', 'delay', '1us'])) return 'netem';
  if (machine.tunDevice) return 'relay';
  throw new SmoeError(
    'TESTBED_NO_LATENCY',
    'this machine cannot delay frames: no netem in the kernel, no /dev/net/tun',
    {
      hint: 'load the module sch_netem or tun, or give --latency 0',
    },
  );
}

/** Tries it on the loopback of a namespace that ends with the command; loads the kernel's module where there is one. */
function hasDiscipline(machine: Machine, discipline: string[]): boolean {
  return machine.run(['unshare', '--net', 'tc', 'qdisc', 'add', 'dev', 'lo', 'root', ...discipline]).status === 0;
}
