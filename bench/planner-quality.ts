/**
 * How good placements are: every solver on a profile trace, measured on an evaluation trace, for several clusters.
 *
 *   node dist/bench/planner-quality.js PROFILE.parquet EVALUATION.parquet [--devices 2,4,8,16] [--json FILE]
 *
 * Prints a Markdown table. Remote devices and nodes per token, LAR and imbalance are on the evaluation trace, every token at its own best
 * device; the bound on the imbalance (1.1) holds on the profile, where some placement meets it.
 */
import { writeFileSync } from 'node:fs';
import { layoutOf } from '../src/plan/device-layout.ts';
import { evaluatePlacement } from '../src/plan/evaluate.ts';
import { collectExpertSets, connectivityCost } from '../src/plan/objective.ts';
import { solvers } from '../src/plan/solvers/index.ts';
import { readTrace } from '../src/trace/parquet.ts';
import { machine } from './machine.ts';

interface Row {
  devices: number;
  nodes: number;
  replicasPerDevice: number;
  solver: string;
  localActivationRate: number;
  remoteDevicesPerToken: number;
  /** Without replicas only. */
  remoteNodesPerToken: number | undefined;
  /** Largest / mean load, averaged over layers, and of the worst layer. */
  loadImbalance: number;
  worstImbalance: number;
  seconds: number;
  /** Of the process so far. */
  peakMemoryMb: number;
  notes: string[];
}

const [profilePath, evaluationPath] = process.argv.slice(2).filter((arg) => !arg.startsWith('--'));
const option = (name: string): string | undefined => {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
};
if (profilePath === undefined || evaluationPath === undefined) {
  console.error('usage: planner-quality PROFILE.parquet EVALUATION.parquet [--devices 2,4,8,16] [--json FILE]');
  process.exit(2);
}
const profile = await readTrace(profilePath, { weights: true });
const evaluation = await readTrace(evaluationPath);
const { layers, experts, topK } = profile.model;
const counts = (option('--devices') ?? '2,4,8,16').split(',').map(Number);
const setups = [
  ...counts.map((devices) => ({ devices, nodes: 1, replicasPerDevice: 0 })),
  { devices: 8, nodes: 2, replicasPerDevice: 0 },
  ...counts.map((devices) => ({ devices, nodes: 1, replicasPerDevice: Math.round(experts / devices / 4) })),
];
const order = ['contiguous', 'eplb', 'exflow', 'cross-entropy', 'alternating', 'hypergraph'];
const rows: Row[] = [];
for (const { devices, nodes, replicasPerDevice } of setups) {
  for (const name of order) {
    // Only these two know what to do with copies.
    if (replicasPerDevice > 0 && name !== 'hypergraph' && name !== 'eplb') continue;
    const nodeOf = Uint16Array.from({ length: devices }, (_, device) => Math.floor((device * nodes) / devices));
    const started = performance.now();
    const placement = await solvers[name]!.solve({
      trace: profile,
      devices,
      seed: 1,
      maximumImbalance: 1.1,
      replicasPerDevice,
      layout: layoutOf(devices, experts, { nodeOf }),
    });
    const seconds = (performance.now() - started) / 1000;
    const noCopies = Array.from({ length: layers }, () => Array.from({ length: devices }, () => []));
    const replicas = placement.replicas ?? noCopies;
    const figures = evaluatePlacement({ devices, expertOwner: placement.expertOwner, replicas }, evaluation);
    rows.push({
      devices,
      nodes,
      replicasPerDevice,
      solver: name,
      localActivationRate: figures.localActivationRate,
      remoteDevicesPerToken: figures.remoteDevicesPerToken,
      remoteNodesPerToken: nodes > 1 ? remoteNodes(placement.expertOwner, nodeOf, nodes) : undefined,
      loadImbalance: figures.loadImbalance,
      worstImbalance: Math.max(...figures.layers.map((layer) => layer.loadImbalance)),
      seconds,
      peakMemoryMb: process.resourceUsage().maxRSS / 1024,
      notes: placement.notes,
    });
    console.error(
      `${devices} devices, ${nodes} nodes, ${replicasPerDevice} copies: ${name} in ${seconds.toFixed(1)} s`,
    );
  }
}
const document = {
  machine: machine(),
  model: profile.model,
  profileTokens: profile.length,
  evaluationTokens: evaluation.length,
  rows,
};
const json = option('--json');
if (json !== undefined) writeFileSync(json, `${JSON.stringify(document, undefined, 2)}\n`);
console.log(`# Placement quality

${document.machine}. Model of ${layers} MoE layers, ${experts} experts, top-${topK} (${profile.model.fingerprint}); solved on ${profile.length}
tokens, measured on ${evaluation.length} others, every token at its own best device. "imbalance" is the mean over layers and (worst layer).
`);
for (const setup of setups) console.log(renderSetup(setup));

function remoteNodes(expertOwner: Uint16Array, nodeOf: Uint16Array, nodes: number): number {
  let sum = 0;
  for (let layer = 0; layer < layers; layer++) {
    const sets = collectExpertSets(evaluation, layer);
    const node = expertOwner.slice(layer * experts, (layer + 1) * experts).map((device) => nodeOf[device]!);
    sum += connectivityCost(sets, node, nodes) / sets.tokens;
  }
  return sum / layers;
}

function renderSetup(setup: (typeof setups)[number]): string {
  const same = rows.filter((row) => row.devices === setup.devices && row.nodes === setup.nodes);
  const shown = same.filter((row) => row.replicasPerDevice === setup.replicasPerDevice);
  const contiguous = same.find((row) => row.solver === 'contiguous')!.remoteDevicesPerToken;
  const nodes = setup.nodes > 1;
  const copies = setup.replicasPerDevice > 0 ? `, ${setup.replicasPerDevice} copies per device` : '';
  const heading = `## ${nodes ? `${setup.nodes} nodes x ${setup.devices / setup.nodes}` : setup.devices} devices${copies}`;
  const lines = shown.map((row) => {
    const change = `${((row.remoteDevicesPerToken / contiguous - 1) * 100).toFixed(1)} %`;
    const cells = [
      row.solver,
      row.remoteDevicesPerToken.toFixed(3),
      row.solver === 'contiguous' ? '-' : change,
      ...(nodes ? [row.remoteNodesPerToken!.toFixed(3)] : []),
      `${(row.localActivationRate * 100).toFixed(1)} %`,
      `${row.loadImbalance.toFixed(2)} (${row.worstImbalance.toFixed(2)})`,
      row.seconds.toFixed(1),
      row.peakMemoryMb.toFixed(0),
    ];
    return `| ${cells.join(' | ')} |`;
  });
  const notes = shown.flatMap((row) => row.notes.map((note) => `- ${row.solver}: ${note}`));
  return [
    heading,
    '',
    `| solver | remote devices/token | vs contiguous | ${nodes ? 'remote nodes/token | ' : ''}LAR | imbalance | seconds | peak MB so far |`,
    `|---|---|---|---|---|---|---|${nodes ? '---|' : ''}`,
    ...lines,
    ...(notes.length > 0 ? ['', ...notes] : []),
    '',
  ].join('\n');
}
