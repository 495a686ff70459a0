/** Runs the cells of one network, inside it: sessions stay open over the workloads of a layout, setups take turns. */
import { cachePositionsFor } from '../../src/cli/prompts.ts';
import { demoDirectory } from '../../src/cli/model-directory.ts';
import type {
  GenerationRequest,
  Layout,
  LogitsKept,
  RunOptions,
  RunReport,
  Session,
  SessionOptions,
} from '../../src/engine/api.ts';
import { openSession, openSessions } from '../../src/engine/session.ts';
import { warmUp } from '../../src/engine/warm-up.ts';
import { readPlan } from '../../src/plan/plan-file.ts';
import { SeededRandom } from '../../src/plan/seeded-random.ts';
import { sumOfPhases } from '../../src/timeline/phase-times.ts';
import { phaseNames, type PhaseName } from '../../src/timeline/phases.ts';
import { evaluationRequests } from '../evaluation-requests.ts';
import { median } from '../machine.ts';
import {
  cellName,
  linkOf,
  setups,
  planNames,
  setupsOf,
  workloads,
  type Cell,
  type NamedLayout,
  type Network,
  type PlanName,
  type Setup,
  type Workload,
} from './matrix.ts';
import { planPath } from './plans.ts';
import {
  requestsKey,
  upsert,
  writeResults,
  type CellResult,
  type Reference,
  type Results,
  type SetupResult,
} from './results.ts';

/** Of every session of a layout and network. */
const warmUpMs = 3000;
/** Of the one-rank run, which no figure of the tables depends on. */
const oneRankRepeats = 3;

export interface MeasureOptions {
  results: Results;
  resultsPath: string;
  plansDirectory: string;
  cells: Cell[];
  repeats: number;
  /** No cell is begun after it; milliseconds of Date.now(). */
  deadline: number;
  onProgress: (what: string) => void;
  signal: AbortSignal;
}

export function requestsOf(workload: Workload, layout: Layout): GenerationRequest[] {
  return evaluationRequests(workload.sequences(layout), workload.promptTokens, workload.newTokens);
}

export function workloadKey(workload: Workload, layout: Layout): string {
  return requestsKey({ ...workload, sequences: workload.sequences(layout) });
}

/** Returns whether every cell has been measured. */
export async function measureCells(options: MeasureOptions): Promise<boolean> {
  const { cells, deadline } = options;
  for (const layout of new Set(cells.map((cell) => cell.layout))) {
    const ofLayout = cells.filter((cell) => cell.layout === layout);
    if (Date.now() > deadline) return false;
    if (!(await measureLayout(ofLayout[0]!.network, layout, ofLayout, options))) return false;
  }
  return true;
}

async function measureLayout(
  network: Network,
  layout: NamedLayout,
  cells: Cell[],
  options: MeasureOptions,
): Promise<boolean> {
  const { results, resultsPath, plansDirectory, deadline, onProgress } = options;
  const positions = cells.map(({ workload }) => cachePositionsFor(requestsOf(workload, layout), layout.dataParallel));
  const sessions = new Map<PlanName, Session>();
  try {
    onProgress(`${network.name} ${layout.name}: starting ranks`);
    const opened = await openSessions(
      {
        modelDirectory: demoDirectory,
        layout: { dataParallel: layout.dataParallel, tensorParallel: layout.tensorParallel },
        ...transportOf(network),
        maximumStepTokens: results.stepTokens,
        cachePositions: Math.max(...positions),
      },
      planNames.map((plan) => ({ plan: readPlan(planPath(plansDirectory, plan)) })),
    );
    planNames.forEach((plan, i) => sessions.set(plan, opened[i]!));
    await warmUpAll(sessions, layout, options);
    for (const cell of cells) {
      if (Date.now() > deadline) return false;
      const result = await measureCell(cell, sessions, options);
      upsert(results.cells, result, (item) => item.cell);
      writeResults(resultsPath, results);
    }
    return true;
  } finally {
    await Promise.all([...sessions.values()].map((session) => session.close()));
  }
}

/** `deepspeed-moe` waits for the network too long to be of use here. */
async function warmUpAll(
  sessions: ReadonlyMap<PlanName, Session>,
  layout: Layout,
  { onProgress, signal }: MeasureOptions,
): Promise<void> {
  const decode = workloads.find(({ name }) => name === 'decode-8')!;
  const requests = requestsOf(decode, layout);
  for (const [plan, session] of sessions) {
    onProgress(`warming up ranks on plan ${plan}`);
    const warming = setups
      .filter((setup) => setup.plan === plan && setup.schedule !== 'deepspeed-moe')
      .map((setup) => () => session.run({ ...runOf(setup), requests, logits: 'none', signal }));
    await warmUp(warming, warmUpMs);
  }
}

function runOf(setup: Setup): Omit<RunOptions, 'requests' | 'logits'> {
  const { schedule, predictor, overlap, compactRows, oneShotTokens } = setup;
  return {
    ...{ schedule, predictor, overlap, recordRouting: false },
    ...(compactRows === undefined ? {} : { compactRows }),
    ...(oneShotTokens === undefined ? {} : { oneShotTokens }),
  };
}

/** On a testbed this process and the others that mpirun has started are the ranks. */
function transportOf(network: Network): Pick<SessionOptions, 'transport' | 'link'> {
  if (network.kind === 'testbed') return { transport: 'mpi' };
  return network.kind === 'emulated' ? { transport: 'threads', link: linkOf(network) } : { transport: 'threads' };
}

/**
 * 1. One run of every setup whose logits are compared with the one-rank run.
 * 2. `repeats` rounds of all setups in an order of its own each.
 */
async function measureCell(
  cell: Cell,
  sessions: ReadonlyMap<PlanName, Session>,
  { results, repeats, onProgress, signal }: MeasureOptions,
): Promise<CellResult> {
  const { network, layout, workload } = cell;
  const used = setupsOf(cell);
  const name = cellName(cell);
  const requests = requestsOf(workload, layout);
  const started = performance.now();
  const run = (setup: Setup, logits: LogitsKept): Promise<RunReport> => {
    return sessions.get(setup.plan)!.run({ ...runOf(setup), requests, logits, signal });
  };
  const measured: SetupResult[] = [];
  for (const setup of used) {
    onProgress(`${name}: ${setup.name}, checked run`);
    const reference = results.references[setup.plan]![workloadKey(workload, layout)]!;
    measured.push(firstResult(setup, await run(setup, 'sampled'), reference));
  }
  const random = new SeededRandom(1);
  const roundsStarted = performance.now();
  for (let round = 0; round < repeats; round++) {
    for (const at of shuffled(used.length, random)) {
      const setup = used[at]!;
      const left = ((performance.now() - roundsStarted) / 1000 / round) * (repeats - round);
      onProgress(
        `${name}: round ${round + 1} of ${repeats}${round === 0 ? '' : `, about ${left.toFixed(0)} s left`}: ${setup.name}`,
      );
      const report = await run(setup, 'none');
      const reference = results.references[setup.plan]![workloadKey(workload, layout)]!;
      addSample(measured[at]!, report, reference);
    }
  }
  return {
    cell: name,
    ...{ network: network.name, layout: layout.name, workload: workload.name },
    ...{ sequences: requests.length, promptTokens: workload.promptTokens, newTokens: workload.newTokens },
    repeats,
    seconds: Math.round((performance.now() - started) / 1000),
    measuredAt: new Date().toISOString(),
    setups: measured,
  };
}

function firstResult({ name, plan, schedule }: Setup, report: RunReport, reference: Reference): SetupResult {
  const { bytes, messages, localActivationRate, remoteDevicesPerToken, loadImbalance, recall, steps } = report;
  const decodeSteps = steps.filter(({ phase }) => phase === 'decode').length;
  return {
    setup: name,
    plan,
    bytes,
    messages,
    localActivationRate: rounded(localActivationRate, 4),
    remoteDevicesPerToken: rounded(remoteDevicesPerToken, 4),
    loadImbalance: rounded(loadImbalance, 4),
    recall: schedule === 'speculative' ? rounded(recall, 4) : null,
    prefillSteps: steps.length - decodeSteps,
    decodeSteps,
    bitIdentical: report.logitsSha256 === reference.logitsSha256 && report.outputSha256 === reference.outputSha256,
    samples: {
      ...{ e2eMs: [], ttftMs: [], tpotMs: [], prefillStepsMs: [], decodeStepsMs: [], computeMs: [] },
      ...{ rankMs: [], predictMs: [], shuffleMs: [] },
    },
  };
}

function addSample(
  result: SetupResult,
  { outputs, steps, phases, outputSha256 }: RunReport,
  reference: Reference,
): void {
  const { samples } = result;
  const middle = (field: 'e2eMs' | 'ttftMs' | 'tpotMs'): number =>
    rounded(median(outputs.map((output) => output[field])), 3);
  const total = (decode: boolean): number =>
    steps
      .filter(({ phase }) => (phase === 'decode') === decode)
      .reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  samples.e2eMs.push(middle('e2eMs'));
  samples.ttftMs.push(middle('ttftMs'));
  samples.tpotMs.push(middle('tpotMs'));
  samples.prefillStepsMs.push(rounded(total(false), 3));
  samples.decodeStepsMs.push(rounded(total(true), 3));
  samples.computeMs.push(
    rounded(
      steps.reduce((sum, { computeMs }) => sum + computeMs, 0),
      3,
    ),
  );
  const meanOf = (names: readonly PhaseName[]): number => {
    const sums = phases.map((times) => sumOfPhases(times.prefill, names) + sumOfPhases(times.decode, names));
    return rounded(sums.reduce((sum, own) => sum + own, 0) / phases.length, 3);
  };
  samples.rankMs.push(meanOf(phaseNames));
  samples.predictMs.push(meanOf(['predict']));
  samples.shuffleMs.push(meanOf(['slices', 'permute']));
  if (outputSha256 !== reference.outputSha256) result.bitIdentical = false;
}

/** Hashes of the one-rank runs that every cell is compared with; only those that are not there yet are made. */
export async function makeReferences(options: MeasureOptions): Promise<void> {
  const { results, resultsPath, plansDirectory, cells, onProgress, signal } = options;
  for (const plan of new Set(setups.map((setup) => setup.plan))) {
    const known = (results.references[plan] ??= {});
    const wanted = new Map(cells.map(({ workload, layout }) => [workloadKey(workload, layout), { workload, layout }]));
    const missing = [...wanted].filter(([key]) => known[key] === undefined);
    if (missing.length === 0) continue;
    const positions = missing.map(([, { workload, layout }]) => cachePositionsFor(requestsOf(workload, layout), 1));
    const session = await openSession({
      modelDirectory: demoDirectory,
      layout: { dataParallel: 1, tensorParallel: 1 },
      plan: readPlan(planPath(plansDirectory, plan)),
      transport: 'threads',
      maximumStepTokens: results.stepTokens,
      cachePositions: Math.max(...positions),
    });
    try {
      for (const [key, { workload, layout }] of missing) {
        onProgress(`one rank, plan ${plan}: ${key}`);
        const run = (logits: LogitsKept): Promise<RunReport> =>
          session.run({
            ...{ schedule: 'dedup', predictor: 'combined', requests: requestsOf(workload, layout) },
            ...{ logits, recordRouting: false, signal },
          });
        const { outputSha256, logitsSha256 } = await run('sampled');
        known[key] = { outputSha256, logitsSha256 };
        if (plan !== 'contiguous') continue;
        const e2eMs: number[] = [];
        for (let repeat = 0; repeat < oneRankRepeats; repeat++) {
          const { outputs } = await run('none');
          e2eMs.push(rounded(median(outputs.map((output) => output.e2eMs)), 3));
        }
        known[key].e2eMs = e2eMs;
      }
      writeResults(resultsPath, results);
    } finally {
      await session.close();
    }
  }
}

function shuffled(length: number, random: SeededRandom): number[] {
  const order = Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor(random.unit() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

export function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
