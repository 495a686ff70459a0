import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { requireNamespaces, requireTopology, type Machine } from '../../src/testbed/requirements.ts';
import { homogeneous, type Topology } from '../../src/testbed/topology.ts';

const plain = homogeneous({ hosts: 2 });
const delayed = homogeneous({ hosts: 2, rateMbit: 100, latencyUs: 100 });

/** A machine on which commands with one of the words in `lacking` fail, and programs in `missing` are not there. */
function machine(options: Partial<Machine> & { lacking?: string[]; missing?: string[] } = {}): Machine {
  const { lacking = [], missing = [], ...rest } = options;
  return {
    platform: 'linux',
    root: true,
    tunDevice: true,
    run: (argv) => {
      const failed = argv.some((word) => lacking.includes(word));
      return {
        status: missing.includes(argv[0]!) ? undefined : failed ? 2 : 0,
        stdout: '',
        stderr: failed ? 'refused' : '',
      };
    },
    ...rest,
  };
}

describe('requirements', () => {
  it('choose how to delay: not at all, netem, the relay', () => {
    const cases: [Topology, Machine, string][] = [
      [plain, machine({ lacking: ['htb', 'netem'], tunDevice: false }), 'none'],
      [delayed, machine(), 'netem'],
      [delayed, machine({ lacking: ['netem'] }), 'relay'],
    ];
    for (const [topology, there, expected] of cases) assert.equal(requireTopology(topology, there), expected);
  });

  it('name what is missing and what to do', () => {
    const cases: [string, RegExp, Machine][] = [
      ['TESTBED_PLATFORM', /darwin/, machine({ platform: 'darwin' })],
      ['TESTBED_ROOT', /root/, machine({ root: false })],
      ['TESTBED_TOOL_MISSING', /ip is not/, machine({ missing: ['ip'] })],
      ['TESTBED_TOOL_MISSING', /tc is not/, machine({ missing: ['tc'] })],
      ['TESTBED_NAMESPACES', /refused/, machine({ lacking: ['--net'] })],
      ['TESTBED_NO_RATE', /htb/, machine({ lacking: ['htb'] })],
      ['TESTBED_NO_LATENCY', /netem/, machine({ lacking: ['netem'], tunDevice: false })],
    ];
    for (const [code, message, there] of cases) {
      assert.throws(() => requireTopology(delayed, there), { code, message, exitStatus: 1 });
    }
    assert.throws(() => requireNamespaces(machine({ missing: ['tc'] })), { hint: /apt-get install iproute2/ });
  });
});
