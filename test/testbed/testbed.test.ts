/** Testbeds on this machine; needs root, `ip` and `tc`. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { endProcessesIn } from '../../src/testbed/namespaces.ts';
import { requireTopology, thisMachine } from '../../src/testbed/requirements.ts';
import { runCommand, tryCommand } from '../../src/testbed/system.ts';
import {
  bringUp,
  describeTestbed,
  listTestbeds,
  openTestbed,
  takeDown,
  withTestbed,
} from '../../src/testbed/testbed.ts';
import { heterogeneous, homogeneous } from '../../src/testbed/topology.ts';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const name = `t${process.pid}`;
const quick = { measure: false };

describe('testbed', { skip: cannotRun() }, () => {
  const runtime = mkdtempSync(join(tmpdir(), 'smoe-testbed-'));
  process.env.XDG_RUNTIME_DIR = runtime;
  after(() => rmSync(runtime, { recursive: true, force: true }));
  let before: string;
  beforeEach(() => (before = traces()));
  afterEach(async () => {
    // The kernel removes the devices of a namespace a moment after its name.
    for (let waited = 0; waited < 3000 && traces() !== before; waited += 50) await delay(50);
    assert.equal(traces(), before);
  });

  /** All that a testbed could leave: namespaces, interfaces, processes, files. */
  function traces(): string {
    return [
      ...tryCommand(['ip', 'netns', 'list'])
        .stdout.split('\n')
        .filter((line) => line.includes(name)),
      ...runCommand(['ip', '-brief', 'link'])
        .split('\n')
        .map((line) => line.split(/\s+/)[0]!),
      ...readdirSync('/proc')
        .filter((entry) => /^\d+$/.test(entry))
        .map(commandLineOf)
        .filter((line) => line.includes(runtime) || line.includes('31.4159')),
      ...readdirSync(runtime, { recursive: true }).map(String),
    ].join('\n');
  }

  it('joins hosts by links of the rate asked for', async () => {
    await withTestbed(homogeneous({ name, hosts: 3, rateMbit: 100 }), async (testbed) => {
      const [{ rateMbit, rttUs, nominal }] = testbed.measured as [(typeof testbed.measured)[0]];
      assert.equal(nominal.rateMbit, 100);
      assert.ok(rateMbit > 60 && rateMbit < 105, `${rateMbit} Mbit/s`);
      assert.ok(rttUs.samples > 150 && rttUs.minimum < 1000, JSON.stringify(rttUs));
      const { stdout } = await testbed.run(2, ['hostname'], { output: 'capture' });
      assert.equal(stdout.trim(), `smoe-${name}-2`);
      const failed = await testbed.run(1, ['sh', '-c', 'exit 7'], { output: 'capture' });
      assert.equal(failed.exitCode, 7);
    });
  });

  it('delays what hosts send, each by its own latency', { skip: cannotDelay() }, async () => {
    const topology = heterogeneous({
      name,
      hosts: [
        { ranks: 1, latencyUs: 3000 },
        { ranks: 1, rateMbit: 1000, latencyUs: 1000 },
      ],
    });
    await withTestbed(topology, async (testbed) => {
      assert.equal(testbed.measured.length, 2);
      for (const { rttUs, rateMbit } of testbed.measured) {
        // Early by the relay's lead at most; late without bound on a busy machine.
        assert.ok(rttUs.minimum >= 3900 && rttUs.p50 < 8000, JSON.stringify(rttUs));
        assert.ok(rateMbit > 100, `${rateMbit} Mbit/s`);
      }
      if (testbed.latencyMechanism === 'relay') {
        await delay(1200);
        const { frames, latenessUs } = testbed.relayStatistics()!;
        assert.ok(frames > 800 && Math.abs(latenessUs!.p50) < 500, JSON.stringify(latenessUs));
      }
    });
  });

  for (const [hosts, ranksPerHost] of [
    [2, 2],
    [4, 1],
  ] as const) {
    it(`starts MPI ranks on ${hosts} hosts of ${ranksPerHost}`, { skip: noMpirun() }, async () => {
      await withTestbed(
        homogeneous({ name, hosts, ranksPerHost, rateMbit: 1000, ...(cannotDelay() ? {} : { latencyUs: 100 }) }),
        async (testbed) => {
          const show =
            'echo "$(hostname) $OMPI_COMM_WORLD_RANK $OMPI_COMM_WORLD_LOCAL_RANK $(ip -o -4 addr show smoe0)"';
          const { exitCode, stdout, stderr } = await testbed.run(
            0,
            ['mpirun', ...testbed.mpirunArguments, 'sh', '-c', show],
            {
              output: 'capture',
            },
          );
          assert.equal(exitCode, 0, stderr);
          const seen = stdout
            .trim()
            .split('\n')
            .map((line) => line.split(/\s+/))
            .map(([host, rank, local, , , , address]) => [Number(rank), host, Number(local), address])
            .sort(([a], [b]) => Number(a) - Number(b));
          const expected = Array.from({ length: hosts * ranksPerHost }, (_, rank) => {
            const host = Math.floor(rank / ranksPerHost);
            return [rank, `smoe-${name}-${host}`, rank % ranksPerHost, `10.201.0.${host + 1}/24`];
          });
          assert.deepEqual(seen, expected);
        },
        quick,
      );
    });
  }

  it('is seen, used and removed by other processes', async () => {
    const topology = homogeneous({ name, hosts: 2, rateMbit: 1000 });
    await bringUp(topology, quick);
    assert.equal(smoe('testbed', 'up', name).code, 'TESTBED_EXISTS');
    const { testbeds } = smoe('testbed', 'status', name).output as {
      testbeds: { status: string; hosts: { address: string }[] }[];
    };
    assert.deepEqual([testbeds[0]!.status, testbeds[0]!.hosts[1]!.address], ['up', '10.201.0.2']);
    const agent = openTestbed(name).agent;
    assert.equal(runCommand([agent, '10.201.0.2', 'hostname']).trim(), `smoe-${name}-1`);
    // Whatever runs on the testbed ends with it.
    spawn(agent, ['1', 'sleep 31.4159'], { stdio: 'ignore', detached: true }).unref();
    await delay(200);
    assert.ok(traces().includes('31.4159'));
    assert.deepEqual(smoe('testbed', 'down', name).output, { removed: [name] });
    assert.deepEqual(smoe('testbed', 'down', name).output, { removed: [] });
    assert.equal(describeTestbed(name), undefined);
    assert.throws(() => openTestbed(name), { code: 'TESTBED_UNKNOWN' });
  });

  it('is called broken when parts are missing, and removed all the same', async () => {
    await bringUp(homogeneous({ name, hosts: 2 }), quick);
    runCommand(['ip', 'netns', 'del', `smoe-${name}-1`]);
    assert.equal(listTestbeds().find((testbed) => testbed.name === name)!.status, 'broken');
    assert.throws(() => openTestbed(name), { code: 'TESTBED_BROKEN' });
    assert.equal(takeDown(name), true);

    if (!cannotDelay()) {
      const { latencyMechanism } = await bringUp(homogeneous({ name, hosts: 2, latencyUs: 100 }), quick);
      if (latencyMechanism === 'relay') {
        endProcessesIn([`smoe-${name}-net`]);
        assert.equal(describeTestbed(name)!.status, 'broken');
      }
      assert.equal(takeDown(name), true);
    }

    await bringUp(homogeneous({ name, hosts: 2 }), quick);
    rmSync(join(runtime, 'smoe'), { recursive: true });
    assert.equal(describeTestbed(name)!.status, 'broken');
    await assert.rejects(bringUp(homogeneous({ name, hosts: 2 }), quick), { code: 'TESTBED_STALE' });
    assert.equal(takeDown(name), true);
  });

  it('is gone after an error in its use', async () => {
    const use = withTestbed(homogeneous({ name, hosts: 2 }), () => Promise.reject(new Error('mine')), quick);
    await assert.rejects(use, { message: 'mine' });
  });

  it('leaves nothing when it is interrupted while it comes up', async () => {
    const interruption = AbortSignal.timeout(60);
    await assert.rejects(bringUp(homogeneous({ name, hosts: 40 }), { signal: interruption }), { code: 'INTERRUPTED' });
  });

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    it(`leaves nothing when ${signal} ends a run, early or late`, async () => {
      for (const moment of ['starting', 'running'] as const) {
        const latency = cannotDelay() ? [] : ['--latency', '1ms'];
        const args = [
          'testbed',
          'run',
          '--name',
          name,
          ...latency,
          '--no-measure',
          '--',
          'sh',
          '-c',
          'echo on; sleep 31.4159',
        ];
        const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
        const ended = new Promise((resolve) => child.once('exit', resolve));
        if (moment === 'running') await new Promise((resolve) => child.stdout.once('data', resolve));
        else while (!existsSync(join(runtime, 'smoe'))) await delay(5);
        child.kill(signal);
        const status = await ended;
        assert.equal(status, 130);
        assert.equal(existsSync(join(runtime, 'smoe')), false);
      }
    });
  }

  it('runs a command from the command line with its environment', () => {
    const script =
      'test "$SMOE_TESTBED_ADDRESSES" = "10.201.0.1 10.201.0.2" && test "$(hostname)" = "${SMOE_TESTBED_HOSTS%% *}"';
    const options = ['--hosts', '2', '--no-measure', '--name', name];
    const { status, output } = smoe('testbed', 'run', ...options, '--json', '--', 'sh', '-c', script);
    assert.equal(status, 0);
    assert.equal((output as { exitCode: number }).exitCode, 0);
    const failing = smoe('testbed', 'run', ...options, '--json', '--', 'sh', '-c', 'exit 5');
    assert.deepEqual([failing.status, (failing.output as { exitCode: number }).exitCode], [1, 5]);
    assert.equal(smoe('testbed', 'run', ...options).code, 'USAGE_MISSING_ARGUMENT');
  });
});

/** `smoe ARGS --json`, unless a command has to come last. */
function smoe(...args: string[]): { status: number | null; output: unknown; code: string | undefined } {
  const all = args.includes('--json') ? args : [...args, '--json'];
  const { status, stdout } = spawnSync(process.execPath, [main, ...all], { encoding: 'utf8' });
  const output = JSON.parse(stdout) as { error?: { code: string } };
  return { status, output, code: output.error?.code };
}

function commandLineOf(id: string): string {
  try {
    return readFileSync(`/proc/${id}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

function cannotRun(latencyUs: number = 0): string | false {
  try {
    requireTopology(homogeneous({ hosts: 2, rateMbit: 100, latencyUs }), thisMachine());
    return false;
  } catch (error) {
    return `a testbed cannot be made here: ${(error as Error).message}`;
  }
}

function cannotDelay(): string | false {
  return cannotRun(100);
}

function noMpirun(): string | false {
  return tryCommand(['mpirun', '--version']).status === 0
    ? false
    : 'OpenMPI is not installed: apt-get install openmpi-bin';
}
