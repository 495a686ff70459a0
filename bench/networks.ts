/** The network measurement: what expert parallelism costs on networks, and what speculation saves there. docs/networks.md explains it. */
import { existsSync, mkdirSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { calibrate } from '../src/calibrate/calibration.ts';
import { measureExchange } from '../src/calibrate/exchange-cost.ts';
import { demoDirectory, demoProfile } from '../src/cli/model-directory.ts';
import { readDocuments } from '../src/cli/prompts.ts';
import { joinProcesses } from '../src/comm/mpi-join.ts';
import { mpiProblem } from '../src/comm/mpi-rank-group.ts';
import { loadTokenizer } from '../src/model/tokenizer.ts';
import { requireTopology, thisMachine } from '../src/testbed/requirements.ts';
import { withTestbed } from '../src/testbed/testbed.ts';
import { machine } from './machine.ts';
import {
  cellName,
  cellsOf,
  layouts,
  networks,
  ranks,
  setupsOf,
  topologyOf,
  transportName,
  workloads,
  type Cell,
  type Network,
} from './networks/matrix.ts';
import { makeReferences, measureCells, workloadKey, type MeasureOptions } from './networks/measure.ts';
import { demoModel, makePlans, planHashes } from './networks/plans.ts';
import { readResults, requestsKey, upsert, writeResults, type Results } from './networks/results.ts';

const usage = `node dist/bench/networks.js [--quick | --complete] [--resume | --overwrite] [--recalibrate] [--budget MINUTES] [--repeats N]
  [--networks A,B] [--layouts A,B] [--workloads A,B] [--out FILE] [--plans DIR]

networks  ${networks.map(({ name }) => name).join(', ')}
layouts   ${layouts.map(({ name }) => name).join(', ')}
workloads ${workloads.map(({ name }) => name).join(', ')}; --quick and the default have fewer, so --workloads with --complete chooses among all

Networks of a testbed need Linux, root, iproute2 and Open MPI; memory and the emulated twins need nothing; the twins are measured only
when named. Every cell is written when it is done: --resume keeps those and goes on, --overwrite begins anew, --budget begins no
cell after so many minutes, --recalibrate measures what the simulator needs once more.
Progress on stderr. The report is made by node dist/bench/networks-report.js.
`;
const stepTokens = 512;
const root = fileURLToPath(new URL('../..', import.meta.url));
const { values: flags } = parseArgs({
  options: {
    help: { type: 'boolean', short: 'h' },
    quick: { type: 'boolean' },
    complete: { type: 'boolean' },
    resume: { type: 'boolean' },
    overwrite: { type: 'boolean' },
    recalibrate: { type: 'boolean' },
    budget: { type: 'string', default: '100000' },
    repeats: { type: 'string' },
    networks: {
      type: 'string',
      default: networks
        .filter(({ kind }) => kind !== 'emulated')
        .map(({ name }) => name)
        .join(','),
    },
    layouts: { type: 'string', default: layouts.map(({ name }) => name).join(',') },
    workloads: { type: 'string', default: workloads.map(({ name }) => name).join(',') },
    out: { type: 'string', default: join(root, 'bench/results/networks.json') },
    plans: { type: 'string', default: join(tmpdir(), 'speculative-moe-networks') },
    /** Of the processes that this recipe starts on a testbed: when to begin no more cells. */
    'inside-until': { type: 'string' },
  },
});

const matrix = flags.quick === true ? 'quick' : flags.complete === true ? 'complete' : 'standard';
const repeats = Number(flags.repeats ?? (matrix === 'quick' ? 2 : 10));
const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => interrupted.abort());
const started = Date.now();

function progress(what: string): void {
  const minutes = ((Date.now() - started) / 60_000).toFixed(1).padStart(5);
  process.stderr.write(`${minutes} min  ${what}\n`);
}

function chosen(flag: 'networks' | 'layouts' | 'workloads', known: readonly { name: string }[]): string[] {
  const names = flags[flag].split(',');
  for (const name of names) {
    if (!known.some((item) => item.name === name)) {
      throw new Error(`--${flag}: ${name} is none of ${known.map((item) => item.name).join(', ')}`);
    }
  }
  return names;
}

function openResults(): Results {
  const existing = readResults(flags.out);
  const plans = planHashes(flags.plans);
  if (existing === undefined || flags.overwrite === true) {
    mkdirSync(dirname(flags.out), { recursive: true });
    const facts = { machine: machine(), repeats, matrix, stepTokens, plans };
    return { version: 1, ...facts, references: {}, calibrations: {}, networks: [], cells: [] };
  }
  if (flags.resume !== true) throw new Error(`${flags.out} exists: --resume goes on with it, --overwrite begins anew`);
  const differs = (what: string): Error => new Error(`${flags.out} is of ${what}: --overwrite begins anew`);
  if (existing.machine !== machine()) throw differs(`another machine (${existing.machine})`);
  if (JSON.stringify(existing.plans) !== JSON.stringify(plans)) throw differs('other plans');
  return existing;
}

function remaining(results: Results, cells: Cell[]): Cell[] {
  const isDone = (cell: Cell): boolean =>
    results.cells.some(
      (done) =>
        done.cell === cellName(cell) &&
        done.repeats >= repeats &&
        setupsOf(cell).every(({ name }) => done.setups.some(({ setup }) => setup === name)) &&
        requestsKey(done) === workloadKey(cell.workload, cell.layout),
    );
  return cells.filter((cell) => !isDone(cell));
}

function measureOptions(results: Results, cells: Cell[], deadline: number): MeasureOptions {
  return {
    ...{ results, resultsPath: flags.out, plansDirectory: flags.plans },
    ...{ cells, repeats, deadline, onProgress: progress, signal: interrupted.signal },
  };
}

/** Rates of the engine on this machine and cost of its exchanges without a network; once for each transport. */
async function calibrateFor(results: Results, cells: Cell[]): Promise<void> {
  const { config, fingerprint } = demoModel();
  const text = readDocuments(demoProfile).map((document) => document.text);
  const tokens = loadTokenizer(demoDirectory).encode(text.slice(0, 20).join('\n'));
  for (const transport of new Set(cells.map((cell) => transportName(cell.network)))) {
    if (results.calibrations[transport] !== undefined && flags.recalibrate !== true) continue;
    results.calibrations[transport] = await calibrate({
      ...{ modelDirectory: demoDirectory, config, modelFingerprint: fingerprint, tokens, transport },
      ...{ cores: availableParallelism(), ranks, repeats: 5, signal: interrupted.signal },
      onProgress: (what) => progress(`calibrating, ${transport}: ${what}`),
    });
    writeResults(flags.out, results);
  }
}

/** Runs this recipe once more, on every rank of the network's testbed: the same processes serve all plans. */
async function measureOnTestbed(network: Network, results: Results, deadline: number): Promise<void> {
  await withTestbed(
    topologyOf(network, `networks-${process.pid}`),
    async (testbed) => {
      const { title, rateMbit, latencyUs, ranksPerNode, name } = network;
      const { latencyMechanism, measured } = testbed;
      const facts = { network: name, title, rateMbit, latencyUs, ranksPerNode, latencyMechanism, measured };
      for (const { from, to, rateMbit: rate, rttUs } of measured) {
        progress(`${name}: host ${from} to ${to} ${rate.toFixed(1)} Mbit/s, round trip ${rttUs.p50.toFixed(0)} us`);
      }
      upsert(results.networks, facts, (item) => item.network);
      writeResults(flags.out, results);
      const mpirun = [process.env.SMOE_MPIRUN ?? 'mpirun', ...testbed.mpirunArguments];
      const command = [...mpirun, process.execPath, fileURLToPath(import.meta.url)];
      const chosenCells = ['--networks', name, '--layouts', flags.layouts, '--workloads', flags.workloads];
      const selection = ['--resume', ...chosenCells, `--${matrix}`];
      const rest = ['--repeats', String(repeats), '--out', flags.out, '--plans', flags.plans];
      const { exitCode } = await testbed.run(
        0,
        [...command, ...selection.filter((word) => word !== '--standard'), ...rest, '--inside-until', String(deadline)],
        { signal: interrupted.signal, output: 'stderr' },
      );
      if (exitCode !== 0) throw new Error(`${name}: the measurement failed`);
    },
    { signal: interrupted.signal },
  );
}

async function main(): Promise<void> {
  if (flags.help === true) {
    process.stdout.write(usage);
    return;
  }
  const cells = cellsOf({
    networks: chosen('networks', networks),
    layouts: chosen('layouts', layouts),
    workloads: chosen('workloads', workloads),
    matrix,
  });
  if (flags['inside-until'] !== undefined) {
    const processes = joinProcesses();
    if (processes.rank > 0) return processes.follow();
    const results = openResults();
    for (const network of new Set(cells.map((cell) => cell.network))) {
      progress(`${network.name}: exchanges among its ranks`);
      const facts = results.networks.find((item) => item.network === network.name)!;
      facts.exchange = await measureExchange({
        ...{ ranks, hosts: ranks / network.ranksPerNode, signal: interrupted.signal },
        launch: (options) => processes.launch(options),
      });
      writeResults(flags.out, results);
    }
    await measureCells(measureOptions(results, remaining(results, cells), Number(flags['inside-until'])));
    processes.leave();
    return;
  }
  const shaped = [...new Set(cells.map(({ network }) => network))].filter(({ kind }) => kind === 'testbed');
  if (shaped.length > 0) {
    for (const network of shaped) requireTopology(topologyOf(network, 'networks'), thisMachine());
    const problem = await mpiProblem();
    if (problem !== undefined) throw problem;
  }
  if (existsSync(flags.out) && flags.resume !== true && flags.overwrite !== true) openResults();
  await makePlans(flags.plans, progress, interrupted.signal);
  let results = openResults();
  const deadline = started + Number(flags.budget) * 60_000;
  await makeReferences(measureOptions(results, cells, deadline));
  await calibrateFor(results, flags.recalibrate === true ? cells : remaining(results, cells));
  for (const network of new Set(cells.map((cell) => cell.network))) {
    const left = remaining(results, cells).filter((cell) => cell.network === network);
    const exchangesAgain = flags.recalibrate === true && network.kind === 'testbed';
    if ((left.length === 0 && !exchangesAgain) || Date.now() > deadline) continue;
    if (network.kind === 'testbed') {
      await measureOnTestbed(network, results, deadline);
      results = readResults(flags.out)!;
    } else {
      await measureCells(measureOptions(results, left, deadline));
    }
  }
  const left = remaining(results, cells);
  const done = `${cells.length - left.length} of ${cells.length} cells in ${flags.out}`;
  progress(left.length === 0 ? done : `${done}; --resume goes on with ${cellName(left[0]!)}`);
  const wrong = results.cells.flatMap(({ cell, setups }) =>
    setups.filter(({ bitIdentical }) => !bitIdentical).map(({ setup }) => `${cell}: ${setup}`),
  );
  if (wrong.length > 0) throw new Error(`bits differ from the one-rank run: ${wrong.join('; ')}`);
}

try {
  await main();
} catch (error) {
  if (!interrupted.signal.aborted) process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = interrupted.signal.aborted ? 130 : 1;
}
