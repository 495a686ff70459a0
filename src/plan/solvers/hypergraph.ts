import { ExitStatus, SmoeError } from '../../errors.ts';
import { type DeviceLayout, layoutOf } from '../device-layout.ts';
import { solveLayers } from '../layer-pool.ts';
import { collectExpertSets, setLoads } from '../objective.ts';
import { type PlacementProblem, type PlacementSolver, placementWishes } from '../solver.ts';
import { mostMembers } from './copies.ts';
import { effortFor } from './layer-partition.ts';

/** Routed pairs below which starting threads costs more than it gains. */
const fewPairs = 50_000;
/** Tokens beyond which a layer is solved from evenly spaced ones. */
const mostTokens = 120_000;

/** Ours: balanced partitioning of the experts' hypergraph, then copies (docs/method.md, what actually costs bytes). */
export const hypergraphSolver: PlacementSolver = {
  name: 'hypergraph',
  heeds: placementWishes,
  fallsBack: true,
  async solve(problem: PlacementProblem) {
    const { trace, devices, seed, maximumImbalance, replicasPerDevice = 0, start, movePrice = 0 } = problem;
    const { layers, experts, topK } = trace.model;
    const layout = problem.layout ?? layoutOf(devices, experts);
    const { expertGroups: groups = 0, keepGroupsOn = 'device' } = problem;
    checkConstraints(problem, layout);
    const rows = spacedRows(trace.length, mostTokens);
    const results = await solveLayers(
      'hypergraph',
      (layer, budgetMs) => {
        const sets = collectExpertSets(trace, layer, rows);
        return {
          layer,
          sets,
          loads: setLoads(sets),
          layout,
          maximumImbalance,
          seed,
          replicasPerDevice,
          groups,
          keepGroupsOn,
          start: start?.slice(layer * experts, (layer + 1) * experts),
          movePrice,
          effort: effortFor(layers, experts),
          budgetMs,
        };
      },
      {
        layers,
        threads: trace.length * layers * topK < fewPairs ? 1 : problem.threads,
        timeLimitSeconds: problem.timeLimitSeconds,
        onProgress: problem.onProgress,
        signal: problem.signal,
      },
    );
    const expertOwner = new Uint16Array(layers * experts);
    const notes: string[] = [];
    results.forEach(({ owner, imbalanceBound }, layer) => {
      expertOwner.set(owner, layer * experts);
      if (imbalanceBound <= maximumImbalance) return;
      const reached = `layer ${layer}: load imbalance ${maximumImbalance} cannot be met`;
      if (problem.strictImbalance === true) {
        throw new SmoeError(
          'PLAN_INFEASIBLE',
          `${reached}, the most balanced placement found has ${imbalanceBound.toFixed(3)}`,
          {
            hint: `allow a load imbalance of ${(Math.ceil(imbalanceBound * 100) / 100).toFixed(2)}, or use fewer devices`,
            exitStatus: ExitStatus.noFeasiblePlan,
          },
        );
      }
      notes.push(`${reached}, kept to ${imbalanceBound.toFixed(3)}`);
    });
    return { expertOwner, replicas: results.map(({ replicas }) => replicas), notes };
  },
};

/** Up to `most` row numbers, evenly spaced; undefined for all. */
function spacedRows(length: number, most: number): Int32Array | undefined {
  return length <= most ? undefined : new Int32Array(most).map((_, i) => Math.floor((i * length) / most));
}

/** PLAN_INFEASIBLE names the constraint that no placement can meet. */
function checkConstraints(
  { trace, devices, replicasPerDevice = 0, expertGroups = 0, keepGroupsOn = 'device' }: PlacementProblem,
  layout: DeviceLayout,
): void {
  const { experts, topK } = trace.model;
  const infeasible = (message: string, hint: string): SmoeError =>
    new SmoeError('PLAN_INFEASIBLE', message, { hint, exitStatus: ExitStatus.noFeasiblePlan });
  const mostCopies = experts - Math.max(...layout.most);
  if (replicasPerDevice > mostCopies)
    throw infeasible(
      `replicas: ${replicasPerDevice} copies per device, but only ${mostCopies} experts are foreign to every device`,
      'ask for fewer replicas',
    );
  if (replicasPerDevice > 0 && topK > mostMembers)
    throw infeasible(`replicas: not for more than ${mostMembers} experts per token`, 'ask for no replicas');
  if (expertGroups === 0) return;
  if (experts % expertGroups !== 0)
    throw infeasible(
      `expert groups: ${experts} experts do not fall into ${expertGroups} equal groups`,
      'check the model',
    );
  const places = keepGroupsOn === 'device' ? devices : layout.nodes;
  const size = experts / expertGroups;
  const room = Array.from({ length: places }, () => 0);
  layout.most.forEach((most, device) => (room[keepGroupsOn === 'device' ? device : layout.nodeOf[device]!]! += most));
  const even = layout.most.every((most) => most === layout.most[0]);
  const fits = room.reduce((sum, slots) => sum + Math.floor(slots / size), 0) >= expertGroups;
  if (expertGroups < places || !fits || (even && expertGroups % places !== 0))
    throw infeasible(
      `expert groups: ${expertGroups} groups of ${size} experts cannot stay whole on ${places} ${keepGroupsOn}s`,
      keepGroupsOn === 'device'
        ? 'keep groups on a node, or on nothing'
        : 'use a number of nodes that divides the groups',
    );
}
