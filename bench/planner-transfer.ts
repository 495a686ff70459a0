/**
 * What a plan is worth on text it was not made for: profile on some domains, evaluate on others.
 *
 *   node dist/bench/planner-transfer.js [NAME ...] [--traces FOLDER] [--devices 4] [--json FILE]
 *
 * Domains are the labels of the traces' requests; traces as for planner-quality. Prints, per domain: contiguous placement, then
 * hypergraph plans from the profile's requests of that domain alone, of all others, and of all, each measured on the
 * evaluation requests of the domain, every token at its own best device.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { evaluatePlacement, type PlacementFigures } from '../src/plan/evaluate.ts';
import { solvers } from '../src/plan/solvers/index.ts';
import type { RoutingTrace } from '../src/trace/routing-trace.ts';
import { selectRequests } from '../src/trace/split.ts';
import { machine } from './machine.ts';
import { defaultPairs, pairsIn, readPair } from './planner-traces.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { traces: { type: 'string' }, devices: { type: 'string', default: '4' }, json: { type: 'string' } },
});
const devices = Number(values.devices);
const sources = ['contiguous', 'domain', 'others', 'all'] as const;
type Source = (typeof sources)[number];
interface DomainResult {
  domain: string;
  evaluationTokens: number;
  profileTokens: number;
  figures: Record<Source, PlacementFigures>;
}

const pairs = (values.traces === undefined ? defaultPairs() : pairsIn(values.traces)).filter(
  ({ name }) => positionals.length === 0 || positionals.includes(name),
);
const results: { name: string; domains: DomainResult[] }[] = [];
for (const pair of pairs) {
  const { profile, evaluation } = await readPair(pair);
  const all = await place(profile, 'hypergraph');
  const contiguous = await place(profile, 'contiguous');
  const domains: DomainResult[] = [];
  for (const domain of [...new Set(profile.labels)].sort()) {
    const own = only(profile, (label) => label === domain);
    const test = only(evaluation, (label) => label === domain);
    const owners: Record<Source, Uint16Array> = {
      contiguous,
      domain: await place(own, 'hypergraph'),
      others: await place(
        only(profile, (label) => label !== domain),
        'hypergraph',
      ),
      all,
    };
    const figures = Object.fromEntries(
      sources.map((source) => [
        source,
        evaluatePlacement({ devices, expertOwner: owners[source], replicas: profile.labels.map(() => []) }, test),
      ]),
    ) as Record<Source, PlacementFigures>;
    domains.push({ domain, evaluationTokens: test.length, profileTokens: own.length, figures });
    console.error(`${pair.name}: ${domain}`);
  }
  results.push({ name: pair.name, domains });
}
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ machine: machine(), devices, results }, undefined, 2)}\n`);
console.log(`# Transfer between domains, ${devices} devices\n`);
for (const { name, domains } of results) {
  console.log(`## ${name}

Remote devices per token (LAR), on each domain's evaluation requests, by what the plan was solved from.

| domain | tokens: profile, evaluation | contiguous | that domain | all other domains | all domains |
|---|---:|---:|---:|---:|---:|`);
  for (const { domain, profileTokens, evaluationTokens, figures } of domains)
    console.log(
      `| ${domain} | ${profileTokens}, ${evaluationTokens} | ${sources.map((source) => cell(figures[source])).join(' | ')} |`,
    );
  const mean = (source: Source, field: 'remoteDevicesPerToken' | 'localActivationRate'): number =>
    domains.reduce((sum, { figures }) => sum + figures[source][field], 0) / domains.length;
  const means = sources.map((source) =>
    cell({
      remoteDevicesPerToken: mean(source, 'remoteDevicesPerToken'),
      localActivationRate: mean(source, 'localActivationRate'),
    }),
  );
  console.log(`| mean | | ${means.join(' | ')} |\n`);
}

async function place(trace: RoutingTrace, solver: string): Promise<Uint16Array> {
  return (await solvers[solver]!.solve({ trace, devices, seed: 1, maximumImbalance: 1.1 })).expertOwner;
}

function only(trace: RoutingTrace, wanted: (label: string) => boolean): RoutingTrace {
  return selectRequests(
    trace,
    Uint8Array.from(trace.labels, (label) => (wanted(label) ? 1 : 0)),
  );
}

function cell({
  remoteDevicesPerToken,
  localActivationRate,
}: Pick<PlacementFigures, 'remoteDevicesPerToken' | 'localActivationRate'>): string {
  return `${remoteDevicesPerToken.toFixed(3)} (${(100 * localActivationRate).toFixed(1)} %)`;
}
