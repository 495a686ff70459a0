/** Markdown tables of the network measurement. */
import { median, quantile } from '../machine.ts';
import { layouts, networks, setups, workloads } from './matrix.ts';
import { requestsKey, type CellResult, type NetworkResult, type Results } from './results.ts';
import {
  baseline,
  betterOldSchedule,
  expertBytes,
  kindOf,
  latencyRatio,
  ours,
  percent,
  setupOf,
  byteShare,
  type Bar,
} from './summary.ts';

function table(head: string[], rows: string[][], left: number): string {
  const rule = head.map((_, column) => (column < left ? '---' : '---:'));
  return [head, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

export function barTable(bars: Bar[]): string {
  const verdict = ({ met }: Bar): string => (met === undefined ? 'not measured' : met ? 'met' : '**missed**');
  return table(
    ['what', 'bar', 'measured', ''],
    bars.map((bar) => [bar.what, bar.bar, bar.measured, verdict(bar)]),
    4,
  );
}

function milliseconds(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function quartiles(values: number[]): string {
  const [low, high] = [quantile(values, 0.25), quantile(values, 0.75)];
  return `${milliseconds(median(values))} (${milliseconds(low)}-${milliseconds(high)})`;
}

/** Of one kind of network: a table per network, rows are layouts and workloads, columns setups. */
export function latencyTables({ cells, references }: Results, kind: ReturnType<typeof kindOf>): string {
  const parts: string[] = [];
  for (const network of networks.filter((item) => item.kind === kind)) {
    const own = cells.filter((cell) => cell.network === network.name);
    if (own.length === 0) continue;
    const rows = own.map((cell) => {
      const one = references.contiguous?.[requestsKey(cell)]?.e2eMs;
      return [
        `${cell.layout} ${cell.workload}`,
        one === undefined ? '-' : milliseconds(median(one)),
        ...setups.map(({ name }) => {
          const setup = setupOf(cell, name);
          return setup === undefined ? '-' : quartiles(setup.samples.e2eMs);
        }),
        signed(latencyRatio(cell, ours, betterOldSchedule(cell))[0] - 1),
        signed(latencyRatio(cell, ours, baseline)[0] - 1),
      ];
    });
    const head = ['', 'one rank', ...setups.map(({ name }) => name), 'against the older two', `against ${baseline}`];
    parts.push(`**${network.title}**\n\n${table(head, rows, 1)}`);
  }
  return parts.join('\n\n');
}

function signed(share: number): string {
  return `${share > 0 ? '+' : ''}${percent(share)}`;
}

/** Bytes do not depend on the network: the first cell of each layout and workload stands for all. */
export function byteTable({ cells }: Results): string {
  const rows = layouts.flatMap((layout) =>
    workloads.flatMap((workload) => {
      const cell = cells.find((item) => item.layout === layout.name && item.workload === workload.name);
      return cell === undefined ? [] : [byteRow(cell)];
    }),
  );
  const head = ['EP kB per token', ...setups.map(({ name }) => name), 'against deepspeed-moe', 'alltoallv', baseline];
  return table(head, rows, 1);
}

function byteRow(cell: CellResult): string[] {
  const tokens = cell.sequences * (cell.promptTokens + cell.newTokens - 1);
  const mine = expertBytes(setupOf(cell, ours)!);
  const against = (name: string): string => signed(mine / expertBytes(setupOf(cell, name)!) - 1);
  return [
    `${cell.layout} ${cell.workload}`,
    ...setups.map(({ name }) => {
      const setup = setupOf(cell, name);
      return setup === undefined ? '-' : (expertBytes(setup) / 1000 / tokens).toFixed(1);
    }),
    ...['deepspeed-moe', 'alltoallv', baseline].map(against),
  ];
}

/** How much of its time a setup's bytes need at the rate of the links, mean over the cells of a network. */
export function byteShareTable(results: Results): string {
  const { cells } = results;
  const shown = networks.filter(({ kind, name }) => kind === 'testbed' && cells.some((cell) => cell.network === name));
  if (shown.length === 0) return 'Not measured yet.';
  const rows = setups.map(({ name }) => [
    name,
    ...shown.map((network) => {
      const shares = cells
        .filter((cell) => cell.network === network.name && setupOf(cell, name) !== undefined)
        .map((cell) => byteShare(results, cell, setupOf(cell, name)!));
      return shares.length === 0 ? '-' : percent(shares.reduce((sum, share) => sum + share, 0) / shares.length, 0);
    }),
  ]);
  return table(['', ...shown.map(({ title }) => title)], rows, 1);
}

export function linkTable(measured: NetworkResult[]): string {
  const rows = measured.map(({ title, latencyMechanism, measured: paths }) => {
    const [path] = paths;
    return [
      title,
      latencyMechanism,
      ...(path === undefined
        ? ['-', '-', '-']
        : [
            `${path.rateMbit.toFixed(1)} Mbit/s`,
            `${path.rttUs.p50.toFixed(0)} us (${path.nominal.rttUs} us)`,
            `${path.rttUs.p99.toFixed(0)} us`,
          ]),
    ];
  });
  return table(['network', 'latency by', 'rate measured', 'round trip p50 (nominal)', 'p99'], rows, 2);
}

/** Emulated links against the testbed, cell by cell; undefined while no cell has been run on both. */
export function agreementTable({ cells }: Results): string | undefined {
  const rows: string[][] = [];
  const errors: number[] = [];
  for (const emulated of cells.filter((cell) => kindOf(cell) === 'emulated')) {
    const real = cells.find((cell) => `emulated-${cell.cell}` === emulated.cell);
    if (real === undefined) continue;
    const changes = emulated.setups.map((setup) => {
      const twin = setupOf(real, setup.setup)!;
      return median(setup.samples.e2eMs) / median(twin.samples.e2eMs) - 1;
    });
    errors.push(...changes);
    rows.push([
      real.cell,
      ...setups.map(({ name }) => {
        const at = emulated.setups.findIndex(({ setup }) => setup === name);
        return at === -1 ? '-' : signed(changes[at]!);
      }),
    ]);
  }
  if (rows.length === 0) return undefined;
  const middle = percent(median(errors.map(Math.abs)));
  return `${table(['emulated against testbed, latency', ...setups.map(({ name }) => name)], rows, 1)}\n\nMedian difference ${middle}.`;
}
