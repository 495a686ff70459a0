/** What ranks on several hosts do when the network between them is cut or their processes die; needs root and MPI. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { onHost } from '../../src/testbed/mpi.ts';
import { hostInterface, hostNamespace } from '../../src/testbed/names.ts';
import { processesIn } from '../../src/testbed/namespaces.ts';
import { runCommand } from '../../src/testbed/system.ts';
import { bringUp, type Testbed } from '../../src/testbed/testbed.ts';
import { heterogeneous } from '../../src/testbed/topology.ts';
import { cannotRunMpiOn } from './testbed-with-mpi.ts';

const endWithinMs = 10_000;
const name = `mpi${process.pid}`;
/** mpirun and rank 0 are on the first host, two ranks on the last. */
const topology = heterogeneous({ name, hosts: [{ ranks: 1 }, { ranks: 1 }, { ranks: 2 }] });
const program = fileURLToPath(import.meta.resolve('./mpi-host-program.js'));

interface Ending {
  /** What the host said. */
  said: string;
  milliseconds: number;
}

/** Runs a scenario on the testbed, acts in the midst of it, and sees to it that everything ends. */
async function endingOf(
  testbed: Testbed,
  scenario: string,
  act: (ranks: number[], host: number) => void,
): Promise<Ending> {
  const [command, ...args] = onHost(testbed.topology, 0, [process.execPath, program, scenario]);
  const host = spawn(command!, args, {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, ...testbed.environment },
  });
  const lines = createInterface({ input: host.stdout })[Symbol.asyncIterator]();
  const ranks = JSON.parse((await lines.next()).value as string) as number[];
  assert.equal(ranks.length, 4);
  await delay(100);
  const acted = performance.now();
  act(ranks, host.pid!);
  const said = ((await lines.next()).value as string | undefined) ?? '';
  while (running().length > 0 && performance.now() < acted + endWithinMs) await delay(20);
  assert.deepEqual(running().map(commandLineOf), []);
  return { said, milliseconds: performance.now() - acted };
}

/** Processes on the testbed's hosts: ranks, daemons, mpirun, the host of the run. */
function running(): number[] {
  return topology.hosts.flatMap((_, host) => processesIn(hostNamespace(name, host)));
}

function commandLineOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

/** Files that Open MPI keeps for ranks of the testbed. */
function leftovers(): string[] {
  const sessions = readdirSync(tmpdir())
    .filter((entry) => entry.startsWith(`ompi.smoe-${name}-`))
    .flatMap((entry) => readdirSync(join(tmpdir(), entry)).map((session) => `${entry}/${session}`));
  return [...sessions, ...readdirSync('/dev/shm').filter((entry) => entry.includes(`smoe-${name}-`))];
}

describe('MPI ranks on several hosts', { skip: await cannotRunMpiOn(topology) }, () => {
  const runtime = mkdtempSync(join(tmpdir(), 'smoe-mpi-network-'));
  process.env.XDG_RUNTIME_DIR = runtime;
  let testbed: Testbed;
  before(async () => (testbed = await bringUp(topology, { measure: false })));
  // A cut is mended before the next test.
  afterEach(() => topology.hosts.forEach((_, host) => setLink(host, 'up')));
  after(() => {
    testbed.down();
    rmSync(runtime, { recursive: true, force: true });
  });

  const setLink = (host: number, state: 'up' | 'down'): void => {
    runCommand(['ip', '-n', hostNamespace(name, host), 'link', 'set', hostInterface, state]);
  };

  const cut = (host: number) => (): void => setLink(host, 'down');
  const cases: [string, string, (ranks: number[], host: number) => void, RegExp][] = [
    [
      'a host is cut off while ranks wait',
      'poll',
      cut(2),
      /^RANK_LOST: .*(rank [23] on smoe-\S+-2 has not been heard from|cannot reach 10.201.0.3)/,
    ],
    [
      'a host is cut off while ranks compute',
      'spin',
      cut(1),
      /^RANK_LOST: .*(rank 1 on smoe-\S+-1 has not been heard from|cannot reach 10.201.0.2)/,
    ],
    ['the host of rank 0 is cut off', 'poll', cut(0), /^RANK_LOST: .*(has not been heard from|cannot reach)/],
    [
      'a rank on another host is killed',
      'poll',
      (ranks) => void process.kill(ranks[3]!, 'SIGKILL'),
      /^RANK_DIED: rank 3 died: signal 9 \(Killed\) on (10.201.0.3|smoe-\S+-2)/,
    ],
    [
      'a rank on another host is interrupted',
      'spin',
      (ranks) => void process.kill(ranks[1]!, 'SIGINT'),
      /^RANK_DIED: rank 1 died: signal 2 \(Interrupt\) on (10.201.0.2|smoe-\S+-1)/,
    ],
    ['the host of the run is interrupted', 'poll', (_, host) => void process.kill(host, 'SIGINT'), /^INTERRUPTED: /],
    ['the host of the run is killed', 'spin', (_, host) => void process.kill(host, 'SIGKILL'), /^$/],
  ];
  for (const [what, scenario, act, expected] of cases) {
    it(`leave nothing when ${what}`, async (context) => {
      const { said, milliseconds } = await endingOf(testbed, scenario, act);
      assert.match(said, expected);
      assert.deepEqual(leftovers(), []);
      context.diagnostic(`${(milliseconds / 1000).toFixed(1)} s: ${said}`);
    });
  }
});
