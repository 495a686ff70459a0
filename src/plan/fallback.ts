import type { RoutingTrace } from '../trace/routing-trace.ts';
import type { DeviceLayout } from './device-layout.ts';
import { collectExpertSets, type ExpertSets, layoutCost, loadImbalance, setLoads } from './objective.ts';
import type { Placement } from './solver.ts';
import { Copies, mostMembers } from './solvers/copies.ts';
import { hold } from './solvers/replicas.ts';
import { contiguousIn } from './solvers/starts.ts';

/** What the fallback weighs; `fit` placed the experts, `test` judges. */
export interface FallbackOptions {
  fit: RoutingTrace;
  test: RoutingTrace;
  layout: DeviceLayout;
  maximumImbalance: number;
  /** Blocks of experts that must stay whole, 0 for none. */
  expertGroups: number;
  keepGroupsOn: 'device' | 'node';
}

/**
 * Puts back the contiguous placement, without copies, in every layer where it is cheaper on traffic that was not solved on, and says so.
 * A contiguous layer that breaks a constraint the placement keeps (load bound, whole groups) is not put back; that is said too.
 */
export function fallBackToContiguous(placement: Placement, options: FallbackOptions): void {
  const { fit, test, layout, maximumImbalance } = options;
  const { layers, experts } = test.model;
  const contiguous = contiguousIn(experts, layout);
  const whole = keepsGroups(contiguous, options);
  for (let layer = 0; layer < layers; layer++) {
    const owner = placement.expertOwner.subarray(layer * experts, (layer + 1) * experts);
    const sets = collectExpertSets(test, layer);
    const cost = placementCost(sets, owner, placement.replicas?.[layer], layout) / sets.tokens;
    const contiguousCost = layoutCost(sets, contiguous, layout) / sets.tokens;
    if (cost <= contiguousCost) continue;
    const finding = `layer ${layer}: contiguous costs ${contiguousCost.toFixed(3)} per token on held-out traffic, the solved placement ${cost.toFixed(3)}`;
    const loads = setLoads(collectExpertSets(fit, layer));
    const bound = Math.max(maximumImbalance, imbalanceOn(loads, owner, layout));
    if (!whole || imbalanceOn(loads, contiguous, layout) > bound + 1e-9) {
      placement.notes.push(`${finding}; kept, as contiguous breaks the ${whole ? 'load bound' : 'expert groups'}`);
      continue;
    }
    owner.set(contiguous);
    if (placement.replicas !== undefined) placement.replicas[layer] = Array.from({ length: layout.devices }, () => []);
    placement.notes.push(`${finding}; contiguous is used`);
  }
}

/** Cost at the layout's prices over the sets' tokens, every token at its best home. */
export function placementCost(
  sets: ExpertSets,
  owner: Uint16Array,
  replicas: number[][] | undefined,
  layout: DeviceLayout,
): number {
  if (replicas === undefined || replicas.every((copies) => copies.length === 0) || sets.topK > mostMembers)
    return layoutCost(sets, owner, layout);
  const copies = new Copies(sets, layout, owner);
  const held = new Uint8Array(layout.devices * sets.experts);
  replicas.forEach((list, device) => list.forEach((expert) => (held[device * sets.experts + expert] = 1)));
  hold(copies, held);
  return copies.cost;
}

/** Largest load / speed over the mean. */
function imbalanceOn(loads: Float64Array, owner: Uint16Array, { devices, speeds }: DeviceLayout): number {
  const perSpeed = loads.map((load, expert) => load / speeds[owner[expert]!]!);
  const total = loads.reduce((sum, load) => sum + load, 0);
  const largest = loadImbalance(perSpeed, owner, devices) * perSpeed.reduce((sum, load) => sum + load, 0);
  return total === 0 ? 1 : largest / total;
}

function keepsGroups(owner: Uint16Array, { layout, expertGroups, keepGroupsOn }: FallbackOptions): boolean {
  if (expertGroups === 0) return true;
  const size = owner.length / expertGroups;
  const place = owner.map((device) => (keepGroupsOn === 'device' ? device : layout.nodeOf[device]!));
  return place.every((at, expert) => at === place[expert - (expert % size)]);
}
