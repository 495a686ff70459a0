import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import {
  agentScript,
  hostfileText,
  hostSlotsHere,
  mpirunArguments,
  onHost,
  testbedEnvironment,
} from '../../src/testbed/mpi.ts';
import { heterogeneous } from '../../src/testbed/topology.ts';

const topology = heterogeneous({ name: 'x', hosts: [{ ranks: 4 }, { ranks: 2 }] });
const files = { agent: '/run/x/agent', hostfile: '/run/x/hosts' };

describe('launching on a testbed', () => {
  it('tells mpirun the hosts, their slots, the agent and the interface', () => {
    assert.equal(hostfileText(topology), '10.201.0.1 slots=4\n10.201.0.2 slots=2\n');
    const args = mpirunArguments(topology, files).join(' ');
    for (const part of [
      '-np 6',
      '--hostfile /run/x/hosts',
      '--mca plm_rsh_agent /run/x/agent',
      '--mca btl_tcp_if_include smoe0',
      '--mca oob_tcp_if_include smoe0',
    ]) {
      assert.ok(args.includes(part), part);
    }
    const environment = testbedEnvironment(topology, files);
    assert.equal(environment.SMOE_TESTBED_MPIRUN, args);
    assert.equal(environment.SMOE_TESTBED_ADDRESSES, '10.201.0.1 10.201.0.2');
    assert.equal(environment.SMOE_TESTBED_HOSTS, 'smoe-x-0 smoe-x-1');
    assert.equal(environment.SMOE_TESTBED_RANKS, '6');
  });

  it(
    'writes an agent that takes addresses, names and numbers, and the command as ssh does',
    { skip: noShell() },
    () => {
      // In place of `ip`, something that shows its arguments.
      const script = `ip() { printf '%s|' "$@"; exit; }\n${agentScript(topology).replace('exec ip', 'ip')}`;
      const shown = (...args: string[]): string =>
        spawnSync('sh', ['-c', script, 'agent', ...args], { encoding: 'utf8' }).stdout;
      const rename = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"';
      for (const host of ['10.201.0.2', 'smoe-x-1', '1']) {
        const expected = [
          'netns',
          'exec',
          'smoe-x-1',
          'unshare',
          '--uts',
          'sh',
          '-c',
          rename,
          'smoe-x-1',
          'sh',
          '-c',
          'a "b c" $d',
        ];
        assert.equal(shown(host, 'a', '"b c"', '$d'), expected.map((word) => `${word}|`).join(''));
      }
      assert.equal(spawnSync('sh', ['-c', script, 'agent', '10.201.0.9', 'true']).status, 255);
    },
  );

  it('tells what runs on it how many ranks each host has', () => {
    const hostfile = join(mkdtempSync(join(tmpdir(), 'smoe-mpi-')), 'hosts');
    writeFileSync(hostfile, hostfileText(topology));
    try {
      assert.deepEqual(hostSlotsHere(testbedEnvironment(topology, { ...files, hostfile })), [4, 2]);
    } finally {
      rmSync(dirname(hostfile), { recursive: true });
    }
    assert.equal(hostSlotsHere({}), undefined);
  });

  it('runs a command under the name of its host', () => {
    assert.deepEqual(onHost(topology, 1, ['a', 'b c']).slice(0, 4), ['ip', 'netns', 'exec', 'smoe-x-1']);
    assert.deepEqual(onHost(topology, 1, ['a', 'b c']).slice(-3), ['smoe-x-1', 'a', 'b c']);
  });
});

function noShell(): string | false {
  return process.platform === 'win32' ? 'no shell here' : false;
}
