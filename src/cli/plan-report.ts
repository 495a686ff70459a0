import type { LayerFigures } from '../plan/evaluate.ts';
import type { Plan } from '../plan/plan.ts';
import type { TableReliability } from '../plan/reliability.ts';
import { contiguousOwners } from '../plan/solvers/contiguous.ts';
import type { Console } from './console.ts';
import { formatChange, formatNumber, formatShare } from './format.ts';
import { renderTable } from './table.ts';

export interface SolverReport extends Omit<LayerFigures, 'recall'> {
  solver: string;
  seconds: number;
  /** Highest resident memory of the process so far, so not less than that of the solvers before. */
  peakMemoryMb: number;
  /** (layer, expert) pairs whose owner is not the contiguous one, or not that of the plan to start from. */
  movedExperts: number;
  layers: LayerFigures[];
  /** Of the prediction tables on the evaluation requests; null when the trace has no token ids. */
  reliability: TableReliability | null;
  /** Bounds that had to be relaxed and the like. */
  notes: string[];
}

/** What `smoe plan --json` prints. Figures assume the best home for every token: what perfect prediction would reach. */
export interface PlanReport {
  trace: string;
  evaluation: string;
  devices: number;
  replicasPerDevice: number;
  profileTokens: number;
  evaluationTokens: number;
  solvers: SolverReport[];
  /** What could not be looked at, and solvers that could not do what was asked. */
  notes: string[];
}

export function movedExperts({ expertOwner, layers, experts, devices }: Plan): number {
  const contiguous = contiguousOwners(experts, devices);
  let moved = 0;
  for (let i = 0; i < layers * experts; i++) moved += expertOwner[i] === contiguous[i % experts] ? 0 : 1;
  return moved;
}

export function renderPlanReport(report: PlanReport, style: Console['style'] = (_format, text) => text): string {
  const bold = (title: string): string => style('bold', title);
  const contiguous = report.solvers.find(({ solver }) => solver === 'contiguous');
  const summary = renderTable(
    [
      { title: 'solver', align: 'left' },
      { title: 'remote devices/token', align: 'right' },
      { title: 'vs contiguous', align: 'right' },
      { title: 'LAR', align: 'right' },
      { title: 'imbalance', align: 'right' },
      { title: 'moved experts', align: 'right' },
      { title: 'seconds', align: 'right' },
      { title: 'peak MB', align: 'right' },
    ],
    report.solvers.map((solver) => [
      solver.solver,
      formatNumber(solver.remoteDevicesPerToken, 3),
      contiguous === undefined || contiguous === solver
        ? '-'
        : formatChange(solver.remoteDevicesPerToken, contiguous.remoteDevicesPerToken),
      formatShare(solver.localActivationRate),
      formatNumber(solver.loadImbalance),
      String(solver.movedExperts),
      formatNumber(solver.seconds, 1),
      formatNumber(solver.peakMemoryMb, 0),
    ]),
    bold,
  );
  const layers = renderTable(
    [
      { title: 'layer', align: 'right' },
      ...report.solvers.flatMap(({ solver }) => [
        { title: `${solver}: remote`, align: 'right' as const },
        { title: 'LAR', align: 'right' as const },
        { title: 'imbalance', align: 'right' as const },
      ]),
    ],
    report.solvers[0]!.layers.map((_, layer) => [
      String(layer),
      ...report.solvers.flatMap((solver) => [
        formatNumber(solver.layers[layer]!.remoteDevicesPerToken, 3),
        formatShare(solver.layers[layer]!.localActivationRate),
        formatNumber(solver.layers[layer]!.loadImbalance),
      ]),
    ]),
    bold,
  );
  return [
    `${report.devices} devices${report.replicasPerDevice > 0 ? ` with ${report.replicasPerDevice} copies each` : ''}, solved from ${report.profileTokens} tokens, measured on ${report.evaluationTokens} (${report.evaluation})`,
    style('dim', 'Figures are for the best home of every token: what perfect prediction would reach'),
    '',
    summary,
    layers,
    ...reliabilityLines(report, bold),
    ...report.notes.map((note) => `note: ${note}`),
    ...report.solvers.flatMap(({ solver, notes }) => notes.map((note) => `${solver}: ${note}`)),
  ]
    .join('\n')
    .replace(/\n*$/, '\n');
}

const tableNames: Record<keyof TableReliability, string> = {
  tokenConfidence: 'device of a token id',
  tokenNeeds: 'every device, by token id',
  transitionNeeds: 'every device, by transition',
};

/** How often predictions of each confidence came true, of the first solver that has tables. */
function reliabilityLines({ solvers }: PlanReport, bold: (title: string) => string): string[] {
  const shown = solvers.find(({ reliability }) => reliability !== null);
  if (shown === undefined) return [];
  const { reliability, solver } = shown;
  const tables = Object.keys(tableNames) as (keyof TableReliability)[];
  const rows = tables.map((table) => {
    const { bins, calibrationError } = reliability![table];
    return [
      tableNames[table],
      ...bins.map(({ predictions, frequency }) => (predictions === 0 ? '-' : formatNumber(100 * frequency, 0))),
      `${formatNumber(100 * calibrationError, 1)} points`,
    ];
  });
  const bins = reliability!.tokenNeeds.bins.map(({ from, to }) => `${100 * from}-${100 * to} %`.replace(/\.\d+/g, ''));
  return [
    renderTable(
      [
        { title: 'came true (%) of what was given', align: 'left' },
        ...bins.map((title) => ({ title, align: 'right' as const })),
        { title: 'off by', align: 'right' },
      ],
      rows,
      bold,
    ).replace(/\n$/, `\nPrediction tables of ${solver}, on the same tokens\n`),
  ];
}
