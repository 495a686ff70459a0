import { ExitStatus } from '../errors.ts';
import { diffPlans, type FigureDiff, type PlanDiff } from '../plan/diff.ts';
import { readPlan } from '../plan/plan-file.ts';
import type { Console } from './console.ts';
import { formatChange, formatCount, formatNumber, formatShare } from './format.ts';
import { renderJson } from './json.ts';
import { jsonArgs } from './shared-args.ts';
import { renderTable } from './table.ts';
import type { Verb } from './verb.ts';

export const planDiffVerb: Verb = {
  name: 'plan diff',
  summary: 'Say which experts and copies differ between two plans, and what each plan promises',
  args: {
    from: { type: 'positional', required: true, description: 'Plan to start from (.json)' },
    to: { type: 'positional', required: true, description: 'Plan to go to (.json)' },
    ...jsonArgs,
  },
  examples: [{ command: 'plan diff old.json new.json', does: 'what changing plans means' }],
  async run({ flags, console }) {
    const diff = diffPlans(readPlan(flags.string('from')), readPlan(flags.string('to')));
    console.out(flags.boolean('json') ? renderJson(diff) : renderPlanDiff(diff, console.style));
    return ExitStatus.done;
  },
};

export function renderPlanDiff(diff: PlanDiff, style: Console['style'] = (_format, text) => text): string {
  const bold = (title: string): string => style('bold', title);
  const { localActivationRate, remoteDevicesPerToken, loadImbalance, sameSource } = diff.promise;
  const figure = (name: string, { from, to }: FigureDiff, format: (value: number) => string): string[] => [
    name,
    format(from ?? Number.NaN),
    format(to ?? Number.NaN),
    formatChange(to ?? Number.NaN, from ?? Number.NaN),
  ];
  const promises = renderTable(
    [
      { title: 'promise', align: 'left' },
      { title: 'from', align: 'right' },
      { title: 'to', align: 'right' },
      { title: 'change', align: 'right' },
    ],
    [
      figure('remote devices/token', remoteDevicesPerToken, (value) => formatNumber(value, 3)),
      figure('LAR', localActivationRate, formatShare),
      figure('imbalance', loadImbalance, formatNumber),
    ],
    bold,
  );
  const layers = renderTable(
    [
      { title: 'layer', align: 'right' },
      { title: 'moved', align: 'right' },
      { title: 'copies added', align: 'right' },
      { title: 'removed', align: 'right' },
      { title: 'experts that move', align: 'left' },
    ],
    diff.layers.map(({ layer, moved, replicasAdded, replicasRemoved }) => [
      String(layer),
      String(moved.length),
      String(replicasAdded.length),
      String(replicasRemoved.length),
      shorten(moved.map(({ expert, from, to }) => `${expert}: ${from} to ${to}`)),
    ]),
    bold,
  );
  return [
    `${formatCount(diff.movedExperts, 'expert')} change owner, ${diff.replicasAdded} copies are added, ${diff.replicasRemoved} removed`,
    ...(sameSource ? [] : ['The promises were measured on different traces, or not at all: they do not compare']),
    '',
    promises,
    layers,
  ].join('\n');
}

const mostShown = 6;

function shorten(words: string[]): string {
  const rest = words.length - mostShown;
  return words.slice(0, mostShown).join(', ') + (rest > 0 ? `, and ${rest} more` : '');
}
