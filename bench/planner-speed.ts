/**
 * How long it takes to read a large trace and to place every layer, and how much memory; and how the time grows.
 *
 *   node dist/bench/planner-speed.js [--tokens 1000000] [--case qwen3,deepseek] [--growth] [--json FILE]
 *
 * Cases: `qwen3` 48 layers x 128 experts x top-8 on 8 devices, `deepseek` 58 x 256 x 8 on 64 devices in 8 nodes. Traces are made up
 * (bench/planted-trace.ts), written to a temporary folder and removed; `--tokens` makes them smaller for a try. Every measurement is a
 * process of its own, so that its memory is its own: VmHWM, all threads included.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { solvePlan } from '../src/plan/solve.ts';
import { readTrace } from '../src/trace/parquet.ts';
import { machine } from './machine.ts';
import { writePlantedTrace } from './planted-trace.ts';

interface Case {
  name: string;
  layers: number;
  experts: number;
  topK: number;
  vocabularySize: number;
  tokens: number;
  devices: number;
  nodes: number;
}

interface Measured extends Case {
  fileMb: number;
  readSeconds: number;
  /** Until every layer is placed, without and with prediction tables and the promise. */
  placeSeconds: number;
  planSeconds: number;
  cpuSeconds: number;
  peakMb: number;
}

const { values } = parseArgs({
  options: {
    tokens: { type: 'string', default: '1000000' },
    case: { type: 'string', default: 'qwen3,deepseek' },
    growth: { type: 'boolean', default: false },
    json: { type: 'string' },
    // One measurement, in a process of its own.
    measure: { type: 'string' },
  },
});

if (values.measure !== undefined) {
  const { path, devices, nodes } = JSON.parse(values.measure) as { path: string; devices: number; nodes: number };
  console.log(JSON.stringify(await measure(path, devices, nodes)));
} else await main();

async function measure(path: string, devices: number, nodes: number): Promise<Omit<Measured, keyof Case | 'fileMb'>> {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const trace = await readTrace(path);
  const readSeconds = seconds();
  let placed = 0;
  const nodeOf = Uint16Array.from({ length: devices }, (_, device) => Math.floor((device * nodes) / devices));
  await solvePlan(trace, {
    devices,
    ...(nodes > 1 ? { cluster: { nodeOf } } : {}),
    onProgress: (done, layers) => {
      if (done === layers) placed = seconds();
    },
  });
  const { user, system } = process.cpuUsage();
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return {
    readSeconds,
    placeSeconds: placed - readSeconds,
    planSeconds: seconds() - readSeconds,
    cpuSeconds: (user + system) / 1e6,
    peakMb: Number(peak![1]) / 1024,
  };
}

async function main(): Promise<void> {
  const tokens = Number(values.tokens);
  const cases: Record<string, Case> = {
    qwen3: { name: 'qwen3', layers: 48, experts: 128, topK: 8, vocabularySize: 151_936, tokens, devices: 8, nodes: 1 },
    deepseek: {
      name: 'deepseek',
      layers: 58,
      experts: 256,
      topK: 8,
      vocabularySize: 129_280,
      tokens,
      devices: 64,
      nodes: 8,
    },
  };
  const wanted = values.case.split(',').filter(Boolean);
  const folder = mkdtempSync(join(tmpdir(), 'smoe-planner-speed-'));
  const rows: Measured[] = [];
  try {
    for (const name of wanted) rows.push(run(folder, cases[name]!));
    if (values.growth) {
      const base: Case = { ...cases.qwen3!, name: 'base', layers: 8, tokens: Math.round(tokens / 4) };
      const variants: Case[] = [
        ...[1, 2, 4].map((factor) => ({ ...base, name: 'tokens', tokens: base.tokens * factor })),
        ...[64, 128, 256].map((experts) => ({ ...base, name: 'experts', experts })),
        ...[2, 8, 32, 64].map((devices) => ({ ...base, name: 'devices', devices })),
      ];
      for (const variant of variants) rows.push(run(folder, variant));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ machine: machine(), rows }, undefined, 2)}\n`);
  console.log(`# Planner speed

${machine()}. Made-up routing (bench/planted-trace.ts). "place" is until every layer is placed; "whole plan" adds prediction tables,
calibration and the promise on held-out requests. Peak memory is that of the process.

| | layers x experts x k | tokens | devices | file MB | read s | M pairs/s | place s | read + place s | whole plan s | CPU s | peak MB |
|---|---|---|---|---|---|---|---|---|---|---|---|`);
  for (const row of rows) {
    const { name, layers, experts, topK, devices, nodes, readSeconds, placeSeconds, planSeconds, cpuSeconds } = row;
    const pairs = (row.tokens * layers * topK) / 1e6 / readSeconds;
    const cells = [
      name,
      `${layers} x ${experts} x ${topK}`,
      row.tokens.toLocaleString('en'),
      nodes > 1 ? `${devices} in ${nodes} nodes` : devices,
      row.fileMb.toFixed(0),
      readSeconds.toFixed(1),
      pairs.toFixed(0),
      placeSeconds.toFixed(1),
      (readSeconds + placeSeconds).toFixed(1),
      planSeconds.toFixed(1),
      cpuSeconds.toFixed(1),
      row.peakMb.toFixed(0),
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
}

function run(folder: string, wanted: Case): Measured {
  const path = join(folder, 'trace.parquet');
  console.error(
    `${wanted.name}: writing ${wanted.tokens} tokens of ${wanted.layers} x ${wanted.experts} x ${wanted.topK}`,
  );
  writePlantedTrace(path, { ...wanted, seed: 1 });
  const fileMb = statSync(path).size / 2 ** 20;
  console.error(`${wanted.name}: ${fileMb.toFixed(0)} MB; reading and solving for ${wanted.devices} devices`);
  const { devices, nodes } = wanted;
  const answer = execFileSync(
    process.execPath,
    [fileURLToPath(import.meta.url), '--measure', JSON.stringify({ path, devices, nodes })],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  );
  rmSync(path);
  return { ...wanted, fileMb, ...(JSON.parse(answer) as Omit<Measured, keyof Case | 'fileMb'>) };
}
