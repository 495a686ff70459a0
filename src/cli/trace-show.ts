import { ExitStatus } from '../errors.ts';
import { readTrace } from '../trace/parquet.ts';
import { traceFigure } from '../trace/statistics-figure.ts';
import { longestLookback } from '../trace/predictability.ts';
import { traceStatistics, type TraceStatistics } from '../trace/statistics.ts';
import type { Console } from './console.ts';
import { formatCount, formatNumber, formatShare } from './format.ts';
import { renderJson } from './json.ts';
import { figureArgs, figureWriter } from './figure-args.ts';
import { jsonArgs } from './shared-args.ts';
import { renderTable } from './table.ts';
import type { Verb } from './verb.ts';

export const traceShowVerb: Verb = {
  name: 'trace show',
  summary: 'Say what a routing trace holds, and how predictable and balanced its routing is',
  args: {
    trace: { type: 'positional', required: true, description: 'Trace file (.parquet)' },
    ...figureArgs,
    ...jsonArgs,
  },
  examples: [
    { command: 'trace show routing.parquet', does: 'a trace recorded with `smoe trace record`' },
    {
      command: 'trace show routing.parquet --figure routing.svg',
      does: 'the same, and a figure of load and predictability',
    },
  ],
  async run({ flags, console }) {
    const writeFigure = figureWriter(flags, console);
    const statistics = traceStatistics(await readTrace(flags.string('trace')));
    writeFigure?.(traceFigure(statistics));
    console.out(flags.boolean('json') ? renderJson(statistics) : renderTraceStatistics(statistics, console.style));
    return ExitStatus.done;
  },
};

export function renderTraceStatistics(
  { model, source, tokens, requests, decodeTokens, labels, layers, vocabulary }: TraceStatistics,
  style: Console['style'] = (_format, text) => text,
): string {
  const bold = (title: string): string => style('bold', title);
  const lines = [
    `model ${model.fingerprint}: ${model.layers} MoE layers, ${model.experts} experts, top ${model.topK}`,
    `source: ${source || 'not said'}`,
    `${formatCount(requests, 'request')}, ${tokens} token occurrences, ${decodeTokens} of them generated`,
    vocabulary === undefined
      ? 'token ids unknown: coverage and predictability by token id cannot be said'
      : `${vocabulary.distinctIds} token ids (${formatShare(vocabulary.share)} of the vocabulary); ` +
        `of the second half's tokens ${formatShare(vocabulary.heldOutTokensSeen)} have ids the first half saw`,
  ];
  const labelled = labels.some(({ label }) => label !== '');
  const labelTable = renderTable(
    [
      { title: 'label', align: 'left' },
      { title: 'requests', align: 'right' },
      { title: 'tokens', align: 'right' },
    ],
    labels.map(({ label, requests: count, tokens: rows }) => [label || '(none)', String(count), String(rows)]),
    bold,
  );
  const layerTable = renderTable(
    [
      { title: 'layer', align: 'right' },
      { title: 'busiest / mean', align: 'right' },
      { title: 'unused experts', align: 'right' },
      { title: 'serve half', align: 'right' },
      { title: 'F1 by token id', align: 'right' },
      { title: 'recall', align: 'right' },
      { title: 'quartiles', align: 'right' },
      ...Array.from({ length: longestLookback }, (_, i) => ({ title: `by ${i + 1} before`, align: 'right' as const })),
    ],
    layers.map(({ loadMaximumOverMean, unusedExperts, shareServingHalf, byToken, byTransition }, index) => [
      String(index),
      formatNumber(loadMaximumOverMean),
      String(unusedExperts),
      formatShare(shareServingHalf),
      formatShare(byToken?.f1 ?? Number.NaN),
      formatShare(byToken?.recall ?? Number.NaN),
      byToken === undefined ? '-' : byToken.quartiles.map((share) => formatNumber(100 * share, 0)).join(' / '),
      ...byTransition.map(formatShare),
    ]),
    bold,
  );
  const legend = style(
    'dim',
    'F1 and recall of the k hottest experts per token id, quartiles over ids (%), and by the experts of 1, 2, 3 layers before: ' +
      'fitted on the first half of the requests, tested on the second',
  );
  return [...lines, ...(labelled ? ['', labelTable.trimEnd()] : []), '', layerTable.trimEnd(), legend, ''].join('\n');
}
