/** What the simulator says of every cell, from a routing trace, the plan, the links as measured and one calibration for all. */
import { clusterText } from '../../src/calibrate/cluster-text.ts';
import { cachePositionsFor } from '../../src/cli/prompts.ts';
import { demoDirectory } from '../../src/cli/model-directory.ts';
import type { Cluster } from '../../src/cluster/cluster.ts';
import { decodeCluster } from '../../src/cluster/cluster-file.ts';
import { overlapInMemory } from '../../src/engine/api.ts';
import { openSession } from '../../src/engine/session.ts';
import { readPlan } from '../../src/plan/plan-file.ts';
import { modelShape } from '../../src/simulate/model-shape.ts';
import { simulate } from '../../src/simulate/simulate.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { layouts, networks, ranks, setups, transportName, workloads, type Network, type Setup } from './matrix.ts';
import { rounded, requestsOf, workloadKey } from './measure.ts';
import { demoModel, planPath } from './plans.ts';
import type { CellResult, Results } from './results.ts';

const memoryGB = 4;

/** The machine with the network's exchanges as its ranks measured them; undefined without a calibration of its transport. */
function clusterOf(network: Network, results: Results): Cluster | undefined {
  const calibration = results.calibrations[transportName(network)];
  if (calibration === undefined) return undefined;
  const count = ranks / network.ranksPerNode;
  const exchange = results.networks.find((item) => item.network === network.name)?.exchange;
  const described = { count, gigabitsPerSecond: (network.rateMbit ?? 0) / 1000, latencyUs: network.latencyUs };
  const hosts = count === 1 ? {} : { hosts: exchange === undefined ? described : { count, exchange } };
  return decodeCluster(clusterText(calibration, { title: network.title, memoryGB, ...hosts }), network.name);
}

/** Routing of a workload, from a one-rank run: which experts tokens need depends on nothing else. */
async function record(results: Results, keys: ReadonlySet<string>): Promise<Map<string, RoutingTrace>> {
  const traces = new Map<string, RoutingTrace>();
  const wanted = workloads.flatMap((workload) => layouts.map((layout) => ({ workload, layout })));
  const positions = wanted.map(({ workload, layout }) => cachePositionsFor(requestsOf(workload, layout), 1));
  const session = await openSession({
    modelDirectory: demoDirectory,
    layout: { dataParallel: 1, tensorParallel: 1 },
    plan: readPlan(planPath('', 'grouped')),
    transport: 'threads',
    maximumStepTokens: results.stepTokens,
    cachePositions: Math.max(...positions),
  });
  try {
    for (const { workload, layout } of wanted) {
      const key = workloadKey(workload, layout);
      if (!keys.has(key) || traces.has(key)) continue;
      const { trace } = await session.run({
        ...{ schedule: 'dedup', predictor: 'combined', requests: requestsOf(workload, layout) },
        ...{ logits: 'none', recordRouting: true },
      });
      traces.set(key, trace!);
    }
  } finally {
    await session.close();
  }
  return traces;
}

/**
 * The simulator knows micro-batches within a layer, the engine overlaps beyond its end too; and how compact rows get depends on values it
 * does not have, nor the links by which ranks choose what goes one-shot: no promise is made there.
 */
function isPredicted({ overlap, compactRows, oneShotTokens }: Setup): boolean {
  return overlap === overlapInMemory && compactRows === false && oneShotTokens === 0;
}

/** The setups that a cell was measured with. */
function setupsIn(cell: CellResult): Setup[] {
  return setups.filter(({ name }) => cell.setups.some(({ setup }) => setup === name));
}

/** By cell and setup, milliseconds per step. */
export async function predictSteps(
  results: Results,
  plansDirectory: string,
): Promise<Record<string, Record<string, number>>> {
  const cells = results.cells.map((cell) => ({
    cell,
    network: networks.find(({ name }) => name === cell.network)!,
    layout: layouts.find(({ name }) => name === cell.layout)!,
    workload: workloads.find(({ name }) => name === cell.workload)!,
  }));
  const traces = await record(results, new Set(cells.map(({ workload, layout }) => workloadKey(workload, layout))));
  const shape = modelShape(demoModel().config);
  const plans = new Map(
    setups.map(({ plan }) => [plan, readPlan(planPath(plansDirectory, plan))]), //
  );
  const predicted: Record<string, Record<string, number>> = {};
  for (const { cell, network, layout, workload } of cells) {
    const cluster = clusterOf(network, results);
    if (cluster === undefined) continue;
    predicted[cell.cell] = Object.fromEntries(
      setupsIn(cell)
        .filter(isPredicted)
        .map((setup) => {
          const [result] = simulate({
            ...{ trace: traces.get(workloadKey(workload, layout))!, shape, layout, overlap: false },
            ...{ plan: plans.get(setup.plan)!, schedule: setup.schedule, predictor: setup.predictor },
            composition: { stepTokens: results.stepTokens, decodeBatch: results.stepTokens, phases: 'recorded' },
            clusters: [cluster],
          });
          return [setup.name, rounded(result!.totalMs / result!.steps, 4)];
        }),
    );
  }
  return predicted;
}
