import type { Busiest, SimulationResult } from '../simulate/simulate.ts';
import type { SweepReport } from '../simulate/sweep.ts';
import { sweepUnits } from '../simulate/sweep-figure.ts';
import type { Console } from './console.ts';
import { formatBytes, formatChange, formatCount, formatMilliseconds, formatNumber, formatShare } from './format.ts';
import { type Column, renderTable } from './table.ts';

/** What `smoe simulate --json` prints; fields as in `smoe compare --json` where both have them. */
export interface SimulationReport {
  model: string;
  trace: string;
  layout: { dp: number; tp: number; ep: number };
  transport: 'simulated';
  network: string;
  plan: string;
  prompts: number;
  promptTokens: number;
  generatedTokens: number;
  phases: string;
  overlap: boolean;
  /** Bytes of a row under `speculative` over its plain bytes. */
  compactShare: number;
  oneShotTokens: number;
  schedules: SimulationResult[];
  sweep?: SweepReport;
}

type Style = Console['style'];

interface ResultColumn extends Column {
  cell(result: SimulationResult, report: SimulationReport): string;
}

const left = (title: string, cell: ResultColumn['cell']): ResultColumn => ({ title, align: 'left', cell });
const right = (title: string, cell: ResultColumn['cell']): ResultColumn => ({ title, align: 'right', cell });
const named = [left('plan', ({ plan }) => plan), left('schedule', ({ name }) => name)];

const byteColumns = [
  ...named,
  right('attention', ({ bytes }) => formatBytes(bytes.attention)),
  right('dispatch', ({ bytes }) => formatBytes(bytes.dispatch)),
  right('combine', ({ bytes }) => formatBytes(bytes.combine)),
  right('control', ({ bytes }) => formatBytes(bytes.control)),
  right('total', ({ bytes }) => formatBytes(bytes.total)),
  right('inside nodes', ({ bytesByLink }) => formatBytes(bytesByLink.insideNode)),
  right('between nodes', ({ bytesByLink }) => formatBytes(bytesByLink.betweenNodes)),
  right('messages', ({ messages }) => String(messages)),
  right('LAR', ({ localActivationRate }) => formatShare(localActivationRate)),
  right('remote devices/token', ({ remoteDevicesPerToken }) => formatNumber(remoteDevicesPerToken)),
  right('imbalance', ({ loadImbalance }) => formatNumber(loadImbalance)),
  right('recall', ({ recall }) => formatShare(recall)),
];

const timeColumns = [
  ...named,
  right('step p50', ({ stepMs }) => formatMilliseconds(stepMs.p50)),
  right('p99', ({ stepMs }) => formatMilliseconds(stepMs.p99)),
  right('total', ({ totalMs }) => formatMilliseconds(totalMs)),
  right('vs first', ({ totalMs }, { schedules }) => formatChange(totalMs, schedules[0]!.totalMs)),
  right('computing', ({ computeMs }) => formatMilliseconds(computeMs)),
  right('communicating', ({ communicationMs }) => formatMilliseconds(communicationMs)),
  right('experts’ share', ({ expertExchangeShare }) => formatShare(expertExchangeShare)),
  right('link imbalance', ({ linkImbalance }) => formatNumber(linkImbalance)),
  left('busiest link', ({ busiestLink }) => busiestLink?.name ?? '-'),
  right('busiest rank', ({ busiestRank }) => `${busiestRank.rank} (x${formatNumber(busiestRank.overMean)})`),
];

export function renderSimulation(
  report: SimulationReport,
  {
    perLayer = false,
    perStep = false,
    style = (_format, text) => text,
  }: { perLayer?: boolean; perStep?: boolean; style?: Style } = {},
): string {
  const {
    layout,
    schedules,
    promptTokens,
    generatedTokens,
    prompts,
    overlap,
    compactShare,
    oneShotTokens,
    sweep,
    phases,
  } = report;
  const table = (columns: ResultColumn[]): string =>
    renderTable(
      columns,
      schedules.map((result) => columns.map((column) => column.cell(result, report))),
      (title) => style('bold', title),
    );
  const predicting = schedules.find(({ predictor }) => predictor !== null);
  const prediction = predicting === undefined ? '' : `; homes by ${predicting.predictor}, ${predicting.homes}`;
  const parts = [
    `${report.model}, ${layout.ep} ranks (dp ${layout.dp}, tp ${layout.tp}), simulated on ${report.network}${prediction}`,
    `${formatCount(prompts, 'request')}, ${promptTokens} prompt tokens, ${generatedTokens} generated; ${phases} phases, overlap ${overlap ? 'on' : 'off'}${compactShare === 1 ? '' : `, compact share ${compactShare}`}${oneShotTokens === 0 ? '' : `, one-shot to ${oneShotTokens} tokens`}`,
    '',
    style('dim', `Payload between ranks, all layers and ${formatCount(schedules[0]!.steps, 'step')}`),
    table(byteColumns),
    style('dim', 'Time by the alpha-beta and roofline model of docs/simulator.md'),
    table(timeColumns),
    ...(perLayer ? [style('dim', 'Layers: milliseconds per step'), layerTable(schedules, style)] : []),
    ...(perStep ? [style('dim', 'Steps'), stepTable(schedules, style)] : []),
    ...notes(schedules),
    ...(sweep === undefined
      ? []
      : ['', style('dim', 'Sweep: time saved against the baseline'), sweepTable(sweep, style)]),
  ];
  return `${parts.join('\n').trimEnd()}\n`;
}

/** One row per run and stretch of time, with what it waited for longest. */
function stretchTable(
  schedules: SimulationResult[],
  style: Style,
  titles: string[],
  rowsOf: (result: SimulationResult) => { cells: number[]; milliseconds: number; time: Busiest }[],
): string {
  const columns: Column[] = [
    { title: 'plan', align: 'left' },
    { title: 'schedule', align: 'left' },
    ...titles.map((title): Column => ({ title, align: 'right' })),
    { title: 'ms', align: 'right' },
    { title: 'busiest link', align: 'left' },
    { title: 'busiest rank', align: 'right' },
  ];
  const rows = schedules.flatMap((result) =>
    rowsOf(result).map(({ cells, milliseconds, time: { busiestLink, busiestRank } }) => [
      ...[result.plan, result.name, ...cells.map(String), formatNumber(milliseconds, 3)],
      ...[busiestLink ?? '-', String(busiestRank)],
    ]),
  );
  return renderTable(columns, rows, (title) => style('bold', title));
}

function layerTable(schedules: SimulationResult[], style: Style): string {
  return stretchTable(schedules, style, ['layer'], ({ layers, steps }) =>
    layers.map((time, layer) => ({ cells: [layer], milliseconds: time.milliseconds / steps, time })),
  );
}

function stepTable(schedules: SimulationResult[], style: Style): string {
  return stretchTable(schedules, style, ['step', 'tokens', 'decoded'], ({ stepTimes }) =>
    stepTimes.map((time, step) => ({
      cells: [step, time.tokens, time.decodeTokens],
      milliseconds: time.milliseconds,
      time,
    })),
  );
}

/** Equal notes are said once, with the runs they hold for. */
function notes(schedules: SimulationResult[]): string[] {
  const runsOf = new Map<string, string[]>();
  for (const { plan, name, notes: own } of schedules) {
    for (const { text } of own) runsOf.set(text, [...(runsOf.get(text) ?? []), `${name}, ${plan}`]);
  }
  return [...runsOf].map(
    ([text, runs]) => `note (${runs.length === schedules.length ? 'all' : runs.join('; ')}): ${text}`,
  );
}

function sweepTable({ axis, values, baseline, series }: SweepReport, style: Style): string {
  const unit = sweepUnits[axis];
  const columns: Column[] = [
    { title: 'plan', align: 'left' },
    { title: 'schedule', align: 'left' },
    ...values.map((value): Column => ({ title: `${value} ${unit}`, align: 'right' })),
    { title: 'pays', align: 'left' },
  ];
  const rows = series.map(({ plan, schedule, points, pays, stopsPayingAt }) => {
    const own = plan === baseline.plan && schedule === baseline.schedule;
    const verdict = stopsPayingAt === null ? pays : `${pays} ${Number(stopsPayingAt.toPrecision(3))} ${unit}`;
    return [
      plan,
      schedule,
      ...points.map((point) => (point === null ? '-' : formatShare(point.gain))),
      own ? 'baseline' : verdict,
    ];
  });
  return renderTable(columns, rows, (title) => style('bold', title));
}
