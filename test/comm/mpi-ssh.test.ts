/** Ranks on other hosts by a real ssh, and what is said when it does not let them be started; needs root, MPI and sshd. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onHost } from '../../src/testbed/mpi.ts';
import { hostInterface } from '../../src/testbed/names.ts';
import { bringUp, type Testbed } from '../../src/testbed/testbed.ts';
import { homogeneous } from '../../src/testbed/topology.ts';
import { cannotRunMpiOn } from './testbed-with-mpi.ts';

const sshd = '/usr/sbin/sshd';
const topology = homogeneous({ name: `ssh${process.pid}`, hosts: 2, rateMbit: 1000 });
const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const model = fileURLToPath(new URL('../../../test/fixtures/tiny/qwen3_moe', import.meta.url));
const short = ['--schedules', 'dedup', '--prompt-count', '2', '--prompt-tokens', '8', '--max-new-tokens', '2'];

async function cannotRun(): Promise<string | false> {
  const problem = await cannotRunMpiOn(topology);
  return problem !== false || existsSync(sshd) ? problem : `no ${sshd} here: apt-get install openssh-server`;
}

describe('MPI ranks started by ssh', { skip: await cannotRun() }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'smoe-mpi-ssh-'));
  const file = (name: string): string => join(directory, name);
  process.env.XDG_RUNTIME_DIR = directory;
  let testbed: Testbed;

  before(async () => {
    testbed = await bringUp(topology, { measure: false });
    for (const key of ['user', 'host']) {
      const made = spawnSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', file(key)]);
      assert.equal(made.status, 0);
    }
    const [type, key] = readFileSync(file('host.pub'), 'utf8').split(' ');
    writeFileSync(file('known'), `10.201.0.* ${type} ${key}\n`);
    writeFileSync(file('ssh'), `#!/bin/sh\nexec ssh -F ${file('config')} "$@"\n`);
    chmodSync(file('ssh'), 0o755);
    const settings = ['StrictModes no', 'UsePAM no', 'PermitRootLogin yes', `HostKey ${file('host')}`];
    writeFileSync(file('sshd'), [...settings, `AuthorizedKeysFile ${file('user.pub')}`, ''].join('\n'));
    mkdirSync('/run/sshd', { recursive: true });
    const [command, ...args] = onHost(topology, 1, [sshd, '-f', file('sshd'), '-o', `PidFile=${file('pid')}`]);
    assert.equal(spawnSync(command!, args).status, 0);
  });
  after(() => {
    testbed.down();
    rmSync(directory, { recursive: true, force: true });
  });

  /** `smoe compare` from the first host, with nothing of the testbed but its network. */
  function compareOn(hosts: string, options: { identity?: string; known?: string }): ReturnType<typeof spawnSync> {
    const { identity = 'user', known = 'known' } = options;
    const lines = [`IdentityFile ${file(identity)}`, 'IdentitiesOnly yes', `UserKnownHostsFile ${file(known)}`];
    writeFileSync(file('config'), `${[...lines, 'GlobalKnownHostsFile /dev/null'].join('\n')}\n`);
    const mpirunArguments = [
      ...['--mca', 'plm_rsh_agent', file('ssh')],
      ...['--mca', 'btl_tcp_if_include', hostInterface, '--mca', 'oob_tcp_if_include', hostInterface],
    ];
    const [command, ...args] = onHost(topology, 0, [
      ...[process.execPath, main, 'compare', model, '--transport', 'mpi', '--hosts', hosts, '--json'],
      ...[...short, '--repeats', '1', `--mpirun-args=${mpirunArguments.join(' ')}`],
    ]);
    return spawnSync(command!, args, { encoding: 'utf8', timeout: 100_000 });
  }

  it('compare on hosts with keys', () => {
    const { status, stdout, stderr } = compareOn('10.201.0.1:2,10.201.0.2:2', {});
    assert.equal(status, 0, String(stderr));
    const report = JSON.parse(String(stdout)) as { network: string; outputsIdentical: boolean };
    assert.match(report.network, /^2 hosts \(smoe-\S+-0, smoe-\S+-1\)$/);
    assert.ok(report.outputsIdentical);
  });

  const refusals: [string, string, { identity?: string; known?: string }, RegExp][] = [
    ['a host wants a password', '10.201.0.1,10.201.0.2', { identity: 'host' }, /10\.201\.0\.2 lets nobody in without/],
    ['the key of a host is unknown', '10.201.0.1,10.201.0.2', { known: 'none' }, /ssh does not know the key of a host/],
    ['a host is not there', '10.201.0.1,10.201.0.9', {}, /ssh cannot reach 10\.201\.0\.9: No route to host/],
  ];
  for (const [what, hosts, options, expected] of refusals) {
    it(`are refused with the reason when ${what}`, () => {
      const { status, stderr } = compareOn(hosts, options);
      assert.equal(status, 1, String(stderr));
      assert.match(String(stderr), /^error MPI_LAUNCH: /m);
      assert.match(String(stderr), expected);
    });
  }
});
