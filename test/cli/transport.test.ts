import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readArguments } from '../../src/cli/arguments.ts';
import { readTransport, transportArgs, type Transport } from '../../src/cli/transport.ts';

const testbed = {
  SMOE_TESTBED: 'x',
  SMOE_TESTBED_RANKS: '6',
  SMOE_TESTBED_MPIRUN: '-np 6 --hostfile /run/x/hosts --mca btl_tcp_if_include smoe0',
};
const inside = { OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_RANK: '0' };

function read(args: string[], environment: Record<string, string> = {}): Transport {
  return readTransport(readArguments(args, transportArgs, environment), environment);
}

describe('--transport', () => {
  it('is threads when nothing is said', () => {
    const transport = read([]);
    assert.deepEqual(transport.sessionOptions, { transport: 'threads' });
    assert.equal(transport.ranks, undefined);
    assert.equal(transport.network(['a', 'a']), 'shared memory');
  });

  it('mpi starts ranks on the hosts named, as many as they have room for', () => {
    const transport = read(['--transport', 'mpi', '--hosts', 'a,b:3', '--mpirun-args', ' --mca btl  tcp,self ']);
    assert.deepEqual(transport.sessionOptions, {
      transport: 'mpi',
      mpi: { hosts: ['a', 'b:3'], mpirunArguments: ['--mca', 'btl', 'tcp,self'] },
    });
    assert.equal(transport.ranks, 4);
    assert.equal(transport.network(['a', 'b', 'b', 'b']), '2 hosts (a, b)');
    assert.equal(transport.network(['a', 'a']), 'shared memory');
    const fromFile = read(['--transport=mpi', '--hostfile', 'hosts']);
    assert.deepEqual(fromFile.sessionOptions.mpi, { hostfile: 'hosts', mpirunArguments: [] });
    assert.equal(fromFile.ranks, undefined);
  });

  it('takes its environment twins', () => {
    const transport = read([], { SMOE_TRANSPORT: 'mpi', SMOE_HOSTS: 'a:2,b' });
    assert.deepEqual(transport.sessionOptions.mpi?.hosts, ['a:2', 'b']);
  });

  it('mpi on a testbed uses its hosts, unless others are named', () => {
    const transport = read(['--transport', 'mpi'], testbed);
    const own = ['--hostfile', '/run/x/hosts', '--mca', 'btl_tcp_if_include', 'smoe0'];
    assert.deepEqual(transport.sessionOptions.mpi, { mpirunArguments: own });
    assert.equal(transport.ranks, 6);
    assert.equal(transport.network(['h0', 'h1']), 'testbed x, 2 hosts (h0, h1)');
    // SMOE_HOSTS of `smoe testbed` is a number of hosts.
    assert.deepEqual(read(['--transport', 'mpi'], { ...testbed, SMOE_HOSTS: '6' }).sessionOptions.mpi, {
      mpirunArguments: own,
    });
    assert.deepEqual(read(['--transport', 'mpi', '--hosts', 'a'], testbed).sessionOptions.mpi?.hosts, ['a']);
  });

  it('mpi inside an mpirun takes the processes there are', () => {
    const transport = read(['--transport', 'mpi'], { ...inside, ...testbed });
    assert.deepEqual(transport.sessionOptions, { transport: 'mpi' });
    assert.equal(transport.ranks, 4);
    transport.assertRanks(4);
    assert.throws(() => transport.assertRanks(8), { code: 'RANK_COUNT', message: /8 ranks are wanted, 4 processes/ });
    const slurm = read(['--transport', 'mpi'], { PMIX_RANK: '1', SLURM_NTASKS: '2' });
    assert.equal(slurm.ranks, 2);
  });

  it('mpi inside a Slurm allocation starts as many ranks as it has tasks', () => {
    assert.equal(read(['--transport', 'mpi'], { SLURM_NTASKS: '3' }).ranks, 3);
    assert.equal(read(['--transport', 'mpi', '--hosts', 'a'], { SLURM_NTASKS: '3' }).ranks, 1);
    // The script of `sbatch` is a task 0, but no step.
    assert.equal(read(['--transport', 'mpi'], { SLURM_NTASKS: '4', SLURM_PROCID: '0' }).ranks, 4);
    const step = { SLURM_NTASKS: '2', SLURM_PROCID: '1', SLURM_STEP_NUM_TASKS: '2' };
    assert.throws(() => read(['--transport', 'mpi'], step), { code: 'MPI_SLURM', exitStatus: 2, message: /2 tasks/ });
    assert.equal(read(['--transport', 'mpi'], { ...step, PMIX_RANK: '1' }).ranks, 2);
    assert.equal(read([], step).name, 'threads');
  });

  it('refuses what does not go together', () => {
    const refused = (args: string[], message: RegExp, environment?: Record<string, string>): void =>
      assert.throws(() => read(args, environment), { code: 'USAGE_BAD_VALUE', exitStatus: 2, message });
    refused(['--hosts', 'a'], /--hosts has no meaning with --transport threads/);
    refused(['--transport', 'mpi', '--hosts', 'a', '--hostfile', 'b'], /--hostfile: --hosts is given too/);
    refused(['--transport', 'mpi', '--hosts', 'a'], /--hosts: this process was started by mpirun/, inside);
    refused(['--transport', 'tcp'], /"tcp" is not known/);
  });
});
