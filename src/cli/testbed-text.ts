import type { PathMeasurement } from '../testbed/measure.ts';
import type { Testbed, TestbedDescription } from '../testbed/testbed.ts';
import type { Console } from './console.ts';
import { formatCount, formatMilliseconds } from './format.ts';
import { renderTable } from './table.ts';

type Style = Console['style'];
const plain: Style = (_format, text) => text;

/** What `--json` says of a testbed that is up: its description and how to get commands onto it. */
export function testbedObject(description: TestbedDescription, testbed: Testbed): object {
  const { agent, mpirunArguments, environment } = testbed;
  return { ...description, agent, mpirunArguments, environment };
}

export function renderTestbed(testbed: TestbedDescription, style: Style = plain): string {
  const { name, status, hosts, measured, relay, rateMechanism, latencyMechanism } = testbed;
  if (hosts.length === 0) return `testbed ${name}: ${style('red', status)}; remove it with smoe testbed down ${name}\n`;
  const ranks = hosts.reduce((sum, host) => sum + host.ranks, 0);
  const lines = [
    `testbed ${name}: ${status === 'up' ? status : style('red', status)}, ${formatCount(hosts.length, 'host')}, ` +
      `${formatCount(ranks, 'rank')}; rate by ${rateMechanism}, latency by ${latencyMechanism}`,
    '',
    renderTable(
      [
        { title: 'host', align: 'left' },
        { title: 'address', align: 'left' },
        { title: 'ranks', align: 'right' },
        { title: 'rate', align: 'right' },
        { title: 'one-way latency', align: 'right' },
      ],
      hosts.map((host) => [
        host.name,
        host.address,
        `${host.ranks}`,
        formatRate(host.rateMbit),
        formatMicroseconds(host.latencyUs),
      ]),
      (title) => style('bold', title),
    ),
  ];
  if (measured.length > 0) lines.push(renderMeasurements(testbed, measured, style));
  const lateness = relay?.latenessUs ?? null;
  if (relay !== null && lateness !== null) {
    const { p50, p99, maximum } = lateness;
    lines.push(
      `relay: ${relay.frames} frames, ${relay.dropped} dropped; late by ${p50} us (p50), ${p99} us (p99), ${maximum} us (most)\n`,
    );
  }
  return lines.join('\n');
}

function renderMeasurements({ hosts }: TestbedDescription, measured: PathMeasurement[], style: Style): string {
  return renderTable(
    [
      { title: 'path', align: 'left' },
      { title: 'rate', align: 'right' },
      { title: 'measured', align: 'right' },
      { title: 'round trip', align: 'right' },
      { title: 'measured p50', align: 'right' },
      { title: 'p99', align: 'right' },
    ],
    measured.map(({ from, to, nominal, rateMbit, rttUs }) => [
      `${hosts[from]!.name} -> ${hosts[to]!.name}`,
      formatRate(nominal.rateMbit),
      formatRate(rateMbit),
      formatMicroseconds(nominal.rttUs),
      formatMicroseconds(rttUs.p50),
      formatMicroseconds(rttUs.p99),
    ]),
    (title) => style('bold', title),
  );
}

export function formatRate(rateMbit: number | null): string {
  if (rateMbit === null) return 'no limit';
  return rateMbit >= 1000 ? `${+(rateMbit / 1000).toPrecision(3)} Gbit/s` : `${+rateMbit.toPrecision(3)} Mbit/s`;
}

export function formatMicroseconds(microseconds: number): string {
  return microseconds < 1000 ? `${Math.round(microseconds)} us` : formatMilliseconds(microseconds / 1000);
}
