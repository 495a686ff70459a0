import { SmoeError } from '../errors.ts';
import type { Plan } from './plan.ts';

export interface LayerDiff {
  layer: number;
  /** Experts whose owner differs. */
  moved: { expert: number; from: number; to: number }[];
  /** Copies only the second plan has, and only the first. */
  replicasAdded: { expert: number; device: number }[];
  replicasRemoved: { expert: number; device: number }[];
}

/** A promised figure of both plans; undefined where a plan was not measured. */
export interface FigureDiff {
  from: number | undefined;
  to: number | undefined;
  change: number | undefined;
}

export interface PlanDiff {
  layers: LayerDiff[];
  movedExperts: number;
  replicasAdded: number;
  replicasRemoved: number;
  promise: {
    localActivationRate: FigureDiff;
    remoteDevicesPerToken: FigureDiff;
    loadImbalance: FigureDiff;
    /** False when the promises were measured on different traces: then the figures are no comparison. */
    sameSource: boolean;
  };
}

/** (layer, expert) pairs with another owner. */
export function movedExperts(from: ArrayLike<number>, to: ArrayLike<number>): number {
  let moved = 0;
  for (let at = 0; at < from.length; at++) moved += from[at] === to[at] ? 0 : 1;
  return moved;
}

/** What changing from plan `from` to plan `to` means; PLAN_DIFF_SHAPE unless both are for one model and number of devices. */
export function diffPlans(from: Plan, to: Plan): PlanDiff {
  for (const field of ['modelFingerprint', 'layers', 'experts', 'topK', 'devices'] as const) {
    if (from[field] === to[field]) continue;
    throw new SmoeError('PLAN_DIFF_SHAPE', `the plans differ in ${field}: ${from[field]} and ${to[field]}`, {
      hint: 'compare plans of one model for one number of devices',
    });
  }
  const layers = Array.from({ length: from.layers }, (_, layer): LayerDiff => {
    const moved: LayerDiff['moved'] = [];
    for (let expert = 0; expert < from.experts; expert++) {
      const at = layer * from.experts + expert;
      if (from.expertOwner[at] !== to.expertOwner[at])
        moved.push({ expert, from: from.expertOwner[at]!, to: to.expertOwner[at]! });
    }
    return {
      layer,
      moved,
      replicasAdded: copiesOnlyIn(to, from, layer),
      replicasRemoved: copiesOnlyIn(from, to, layer),
    };
  });
  const figure = (field: 'localActivationRate' | 'remoteDevicesPerToken' | 'loadImbalance'): FigureDiff => {
    const [before, after] = [from.promise?.[field], to.promise?.[field]];
    return {
      from: before,
      to: after,
      change: before === undefined || after === undefined ? undefined : after - before,
    };
  };
  return {
    layers,
    movedExperts: movedExperts(from.expertOwner, to.expertOwner),
    replicasAdded: layers.reduce((sum, { replicasAdded }) => sum + replicasAdded.length, 0),
    replicasRemoved: layers.reduce((sum, { replicasRemoved }) => sum + replicasRemoved.length, 0),
    promise: {
      localActivationRate: figure('localActivationRate'),
      remoteDevicesPerToken: figure('remoteDevicesPerToken'),
      loadImbalance: figure('loadImbalance'),
      sameSource:
        from.promise !== undefined &&
        from.promise.source === to.promise?.source &&
        from.promise.tokens === to.promise.tokens,
    },
  };
}

function copiesOnlyIn(plan: Plan, other: Plan, layer: number): { expert: number; device: number }[] {
  return (plan.replicas[layer] ?? []).flatMap((copies, device) =>
    copies.filter((expert) => !other.replicas[layer]?.[device]?.includes(expert)).map((expert) => ({ expert, device })),
  );
}
