import { ExitStatus, SmoeError } from '../errors.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { requestCount, splitSample } from '../trace/split.ts';
import { applyCalibration, fitCalibration } from './calibration.ts';
import type { DeviceDescription } from './device-layout.ts';
import { evaluatePlacement } from './evaluate.ts';
import type { EmbeddingTable } from './nearest-token.ts';
import type { LayerPredictorName, Plan, PlanPromise, PredictionTables } from './plan.ts';
import { placeExperts } from './place.ts';
import { buildPredictionTables, tokenFrequency } from './prediction-tables.ts';
import { chooseLayerPredictors, measureTablePredictors } from './predictor-choice.ts';
import { defaultSolver, solvers } from './solvers/index.ts';
import { chooseLookback } from './transition-table.ts';

export interface SolveOptions {
  devices: number;
  /** A name of solvers/index.ts. */
  solver?: string;
  seed?: number;
  /**
   * Hard bound on the largest device's routed pairs / mean, per layer, on the profile. When it is given and cannot be met,
   * PLAN_INFEASIBLE; left out, it is 1.1, or where that cannot be met the best that can, with a note.
   */
  maximumImbalance?: number;
  /** Nodes, prices, memory and speeds of the devices. */
  cluster?: DeviceDescription;
  /** Copies of foreign experts each device holds, per layer. */
  replicasPerDevice?: number;
  /** Blocks of consecutive expert ids to keep whole on a device or node (group-limited routing). */
  expertGroups?: number;
  keepGroupsOn?: 'device' | 'node';
  /** Plan in force; moving one expert must save `movePrice` remote devices per token of its layer. */
  start?: Plan;
  movePrice?: number;
  /** The best plan found by then; a search that was cut short is not reproducible. */
  timeLimitSeconds?: number;
  /** Worker threads; by default one per core. */
  threads?: number;
  /** Layers before that the transition table looks at, 1 to 3; by default 2, or 1 where many devices make the table large. */
  lookback?: number;
  /** The model's embedding rows, for token ids the trace never shows. */
  embedding?: EmbeddingTable;
  /** [L] recall of the pregate predictor (RunReport.layers[].recall of a run with it), to choose predictors by. */
  pregateRecall?: Float64Array;
  onProgress?: (finishedLayers: number, layers: number) => void;
  /** Gives up with INTERRUPTED when aborted. */
  signal?: AbortSignal;
}

/** Requests a trace needs before a part of them is held out. */
const fewestRequests = 5;
const fitShare = 0.8;
/** Tokens that are of use for placing, choosing and measuring; the tables are counted from all. */
const mostSearchTokens = 400_000;
/** Tokens that predictors are compared on. */
const mostChoiceTokens = 16_384;
/** Bytes of the largest table, beyond which a plan goes without prediction. */
const mostTableBytes = 2 ** 28;

/**
 * Trace in, plan out. 80 % of the requests decide where experts go; the rest measure the promise and choose predictors; the
 * tables are then built from all. A trace of fewer than five requests is measured on itself, and the promise says so.
 */
export async function solvePlan(trace: RoutingTrace, options: SolveOptions): Promise<Plan> {
  const { devices, solver = defaultSolver, maximumImbalance = 1.1, embedding, pregateRecall } = options;
  const { model } = trace;
  checkRequest(devices, solver, maximumImbalance, model.experts);
  const lookback = chooseLookback(options.lookback, model.layers, devices);
  const held = requestCount(trace) >= fewestRequests;
  const { first: fit, second: test } = held
    ? splitSample(trace, fitShare, mostSearchTokens)
    : { first: trace, second: trace };
  const { expertOwner, replicas, notes } = await placeExperts(fit, test, solver, options);
  const tableBytes = model.layers * model.vocabularySize * devices;
  if (model.vocabularySize === 0) notes.push('the trace holds no token ids: the plan has no prediction tables');
  else if (tableBytes > mostTableBytes) {
    const megabytes = Math.round(tableBytes / 2 ** 20);
    notes.push(
      `prediction tables of ${devices} devices would take ${megabytes} MiB: the plan has none, predict with pregate`,
    );
  }
  const plan: Plan = {
    version: 1,
    modelFingerprint: model.fingerprint,
    devices,
    layers: model.layers,
    experts: model.experts,
    topK: model.topK,
    vocabularySize: model.vocabularySize,
    solver,
    expertOwner,
    replicas,
    prediction: undefined,
    promise: undefined,
    ...(notes.length === 0 ? {} : { notes }),
  };
  plan.promise = promiseOf(plan, test, held);
  if (model.vocabularySize > 0 && tableBytes <= mostTableBytes) {
    const tables = (
      part: RoutingTrace,
      best: LayerPredictorName[],
      lookedUp?: (id: number) => boolean,
    ): PredictionTables =>
      buildPredictionTables(part, expertOwner, devices, best, { embedding, lookback, lookedUp, replicas });
    const inTest = tokenFrequency(test);
    const undecided = Array.from({ length: model.layers }, (): LayerPredictorName => 'token');
    const fitted = tables(fit, undecided, (id) => inTest[id]! > 0);
    // Tables held against what they were made from look right whatever they say.
    const calibration = held ? fitCalibration(fitted, fit, test, expertOwner, devices) : undefined;
    if (calibration !== undefined) applyCalibration(fitted, fit, calibration);
    const { first: choice } = splitSample(test, 1, mostChoiceTokens);
    const recall = measureTablePredictors({ ...plan, prediction: fitted }, choice);
    if (pregateRecall !== undefined) recall.pregate = pregateRecall;
    plan.prediction = tables(trace, chooseLayerPredictors(recall, model.layers));
    if (calibration !== undefined) applyCalibration(plan.prediction, trace, calibration);
  }
  return plan;
}

function checkRequest(devices: number, solver: string, maximumImbalance: number, experts: number): void {
  if (!Object.hasOwn(solvers, solver)) {
    throw new SmoeError('PLAN_SOLVER', `no solver named ${solver}`, {
      hint: `choose one of ${Object.keys(solvers).join(', ')}`,
      exitStatus: ExitStatus.usage,
    });
  }
  if (!Number.isInteger(devices) || devices < 1 || devices > Math.min(experts, 256)) {
    throw new SmoeError('PLAN_INFEASIBLE', `${experts} experts cannot be spread over ${devices} devices`, {
      hint: `ask for 1 to ${Math.min(experts, 256)} devices`,
      exitStatus: ExitStatus.noFeasiblePlan,
    });
  }
  if (!(maximumImbalance >= 1)) {
    throw new SmoeError('PLAN_INFEASIBLE', `a load imbalance of ${maximumImbalance} cannot be reached`, {
      hint: 'the bound is largest / mean load: 1 is perfect balance, 1.1 the default',
      exitStatus: ExitStatus.usage,
    });
  }
}

function promiseOf(plan: Plan, test: RoutingTrace, held: boolean): PlanPromise {
  const { localActivationRate, remoteDevicesPerToken, loadImbalance, layers } = evaluatePlacement(plan, test);
  return {
    source: `${test.source} (${held ? 'held-out requests' : 'the profile itself'})`,
    tokens: test.length,
    localActivationRate,
    remoteDevicesPerToken,
    loadImbalance,
    layers: layers.map((layer) => ({
      localActivationRate: layer.localActivationRate,
      remoteDevicesPerToken: layer.remoteDevicesPerToken,
      loadImbalance: layer.loadImbalance,
    })),
  };
}
