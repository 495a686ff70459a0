import { isLossless, type CompareReport, type ScheduleReport } from './compare-report.ts';
import type { Console } from './console.ts';
import {
  formatBytes,
  formatChange,
  formatCount,
  formatMilliseconds,
  formatNumber,
  formatShare,
  wrap,
} from './format.ts';
import { renderTable, type Column } from './table.ts';

type Style = Console['style'];

interface ReportColumn extends Column {
  cell(schedule: ScheduleReport, report: CompareReport): string;
}

/** Of the widest tables. */
const reasonColumns = 108;

const name: ReportColumn = { title: 'schedule', align: 'left', cell: (schedule) => schedule.name };
const right = (title: string, cell: ReportColumn['cell']): ReportColumn => ({ title, align: 'right', cell });

const byteColumns: ReportColumn[] = [
  name,
  { title: 'plan', align: 'left', cell: (schedule) => schedule.plan },
  { title: 'rows', align: 'left', cell: formOf },
  right('attention', ({ bytes }) => formatBytes(bytes.attention)),
  right('dispatch', ({ bytes }) => formatBytes(bytes.dispatch)),
  right('combine', ({ bytes }) => formatBytes(bytes.combine)),
  right('control', ({ bytes }) => formatBytes(bytes.control)),
  right('total', ({ bytes }) => formatBytes(bytes.total)),
  right('EP vs deepspeed-moe', (schedule, report) => expertChange(schedule, report, 'deepspeed-moe')),
  right('EP vs dedup', (schedule, report) => expertChange(schedule, report, 'dedup')),
];

const routingColumns: ReportColumn[] = [
  name,
  right('LAR', (schedule) => formatShare(schedule.localActivationRate)),
  right('remote devices/token', (schedule) => formatNumber(schedule.remoteDevicesPerToken)),
  right('imbalance', (schedule) => formatNumber(schedule.loadImbalance)),
  right('recall', (schedule) => formatShare(schedule.recall)),
];

const timeColumns: ReportColumn[] = [
  name,
  right('TTFT p50', (schedule) => formatMilliseconds(schedule.ttftMs.p50)),
  right('p99', (schedule) => formatMilliseconds(schedule.ttftMs.p99)),
  right('TPOT p50', (schedule) => formatMilliseconds(schedule.tpotMs.p50)),
  right('p99', (schedule) => formatMilliseconds(schedule.tpotMs.p99)),
  right('e2e p50', (schedule) => formatMilliseconds(schedule.e2eMs.p50)),
  right('vs recommended', ({ name: own, relativeLatency }, { recommendation }) =>
    relativeLatency === null || own === recommendation?.schedule ? '-' : formatChange(relativeLatency, 1),
  ),
  right('tokens/s', (schedule) => formatNumber(schedule.tokensPerSecond, 1)),
];

/** The report for people. */
export function renderComparison(report: CompareReport, style: Style = (_format, text) => text): string {
  const { layout, prompts, promptTokens, generatedTokens, repeats } = report;
  const table = (columns: ReportColumn[]): string =>
    renderTable(
      columns,
      report.schedules.map((schedule) => columns.map((column) => column.cell(schedule, report))),
      (title) => style('bold', title),
    );
  return [
    `${report.model}, ${layout.ep} ranks (dp ${layout.dp}, tp ${layout.tp}), ${report.transport} over ${report.network}; plan ${report.plan}`,
    `${formatCount(prompts, 'prompt')}, ${promptTokens} prompt tokens, ${generatedTokens} generated`,
    '',
    style('dim', 'Payload between ranks, all layers and steps; EP = dispatch + combine'),
    table(byteColumns),
    style('dim', 'Routing'),
    table(routingColumns),
    style(
      'dim',
      `Time: median of ${formatCount(repeats, 'run')}, p50 and p99 over prompts; vs: median of ratios within rounds`,
    ),
    table(timeColumns),
    ...checkedLines(report, style),
    ...recommendationLines(report, style),
    '',
  ].join('\n');
}

function formOf({ compactRows, oneShotTokens }: ScheduleReport): string {
  return `${compactRows ? 'compact' : 'plain'}${oneShotTokens > 0 ? `, one-shot to ${oneShotTokens}` : ''}`;
}

function recommendationLines({ recommendation }: CompareReport, style: Style): string[] {
  if (recommendation === null) return [];
  const { schedule, reason } = recommendation;
  return [style('bold', `recommended here: ${schedule}`), ...wrap(reason, reasonColumns).map((line) => `  ${line}`)];
}

function checkedLines(report: CompareReport, style: Style): string[] {
  const different = report.schedules.filter(({ bitIdentical }) => !bitIdentical).map(({ name: schedule }) => schedule);
  const yes = style('green', 'yes');
  const no = style('red', 'NO ');
  const difference =
    report.maxAbsLogitDifference === null
      ? ''
      : `; largest logit difference between plans: ${report.maxAbsLogitDifference.toExponential(2)}`;
  return [
    `${different.length === 0 ? yes : no} every schedule's logits equal, bit for bit, the one-rank run of its plan${
      different.length === 0 ? '' : `: not ${different.join(', ')}`
    }`,
    `${report.outputsIdentical ? yes : no} all schedules gave the same tokens${difference}`,
    ...(isLossless(report) ? [] : ['This is a defect: please report it with the command line and the machine.']),
  ];
}

function expertChange(schedule: ScheduleReport, report: CompareReport, against: ScheduleReport['name']): string {
  const base = report.schedules.find(({ name: candidate }) => candidate === against);
  if (base === undefined || base === schedule) return '-';
  return formatChange(expertBytes(schedule), expertBytes(base));
}

export function expertBytes({ bytes }: ScheduleReport): number {
  return bytes.dispatch + bytes.combine;
}
