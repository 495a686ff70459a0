import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeSteps, planTestbed, type Step } from '../../src/testbed/commands.ts';
import { namespacesOf, testbedOfNamespace } from '../../src/testbed/names.ts';
import { heterogeneous, homogeneous } from '../../src/testbed/topology.ts';

const commandsOf = (steps: Step[]): string[][] => steps.flatMap((step) => (step.kind === 'command' ? [step.argv] : []));

describe('plan of a testbed', () => {
  it('is, for two unshaped hosts, namespaces, a bridge and two veth pairs', () => {
    assert.deepEqual(describeSteps(planTestbed(homogeneous({ name: 'x', hosts: 2 }), 'none')), [
      'ip netns add smoe-x-net',
      'ip netns add smoe-x-0',
      'ip netns add smoe-x-1',
      'ip -n smoe-x-net link add name bridge0 type bridge',
      'ip -n smoe-x-net link set dev bridge0 up',
      ...[0, 1].flatMap((host) => [
        `ip -n smoe-x-net link add name port${host} type veth peer name smoe0 netns smoe-x-${host}`,
        `ip -n smoe-x-net link set dev port${host} master bridge0`,
        `ip -n smoe-x-${host} address add 10.201.0.${host + 1}/24 dev smoe0`,
        `ip -n smoe-x-net link set dev port${host} up`,
        `ip -n smoe-x-${host} link set dev lo up`,
        `ip -n smoe-x-${host} link set dev smoe0 up`,
      ]),
    ]);
  });

  it('limits the rate of both ends of each limited link', () => {
    const topology = heterogeneous({
      name: 'x',
      hosts: [{ ranks: 1, rateMbit: 100 }, { ranks: 1 }, { ranks: 1, rateMbit: 2500 }],
    });
    const classes = commandsOf(planTestbed(topology, 'none')).filter((argv) => argv[3] === 'class');
    assert.deepEqual(
      classes.map((argv) => [argv[2], argv[6], argv[argv.indexOf('rate') + 1], argv[argv.indexOf('burst') + 1]]),
      [
        ['smoe-x-0', 'smoe0', '100000kbit', '3028'],
        ['smoe-x-net', 'port0', '100000kbit', '3028'],
        ['smoe-x-2', 'smoe0', '2500000kbit', '31250'],
        ['smoe-x-net', 'port2', '2500000kbit', '31250'],
      ],
    );
  });

  it('delays by netem on what a host sends, below htb where there is one', () => {
    const topology = heterogeneous({
      name: 'x',
      hosts: [
        { ranks: 1, rateMbit: 100, latencyUs: 500 },
        { ranks: 1, latencyUs: 20 },
      ],
    });
    const netem = describeSteps(planTestbed(topology, 'netem')).filter((line) => line.includes('netem'));
    assert.deepEqual(netem, [
      'tc -n smoe-x-0 qdisc add dev smoe0 parent 1:10 handle 10: netem limit 2013 delay 500us',
      'tc -n smoe-x-1 qdisc add dev smoe0 root handle 10: netem limit 2050 delay 20us',
    ]);
  });

  it('has the relay make the devices before they move, and no veth then', () => {
    const steps = planTestbed(homogeneous({ name: 'x', hosts: 2, rateMbit: 1000, latencyUs: 50 }), 'relay');
    const relay = steps.findIndex(({ kind }) => kind === 'relay');
    const move = steps.findIndex((step) => step.kind === 'command' && step.argv.includes('host0'));
    assert.ok(relay !== -1 && relay < move);
    assert.deepEqual(steps[relay], {
      kind: 'relay',
      namespace: 'smoe-x-net',
      links: [0, 1].map((host) => ({ host: `host${host}`, port: `port${host}`, rateMbit: 1000, latencyUs: 50 })),
    });
    assert.ok(commandsOf(steps).every((argv) => !argv.includes('veth') && !argv.includes('netem')));
  });

  it('touches only namespaces of its own, which it can take back', () => {
    const steps = planTestbed(homogeneous({ name: 'x', hosts: 3, rateMbit: 1000, latencyUs: 50 }), 'netem');
    const namespaces = namespacesOf('x', 3);
    for (const argv of commandsOf(steps)) {
      const named = argv[1] === 'netns' ? argv[3]! : argv[2]!;
      assert.ok(argv[1] === 'netns' || argv[1] === '-n', argv.join(' '));
      assert.ok(namespaces.includes(named), argv.join(' '));
    }
    const undone = steps.flatMap((step) =>
      step.kind === 'command' && step.undo !== undefined ? [step.undo.at(-1)] : [],
    );
    assert.deepEqual(undone, namespaces);
  });

  it('names namespaces so that their testbed can be told', () => {
    for (const name of ['x', 'a-1', 'net', '0']) {
      for (const namespace of namespacesOf(name, 12)) assert.equal(testbedOfNamespace(namespace), name);
    }
    for (const other of ['smoe', 'smoe-x', 'docker-1', 'smoe-x-y']) assert.equal(testbedOfNamespace(other), undefined);
  });
});
