import type { Plan } from '../plan/plan.ts';

/**
 * Which expert each physical slot holds, the form in which engines take a placement. L = MoE layers, R = ranks, S = slots per rank;
 * slot p is on rank floor(p / S).
 */
export interface ExpertSlots {
  layers: number;
  ranks: number;
  slotsPerRank: number;
  experts: number;
  /** [L][R * S] */
  expertOfSlot: Uint16Array;
  /** Copies that no plan asked for: they even out the ranks. */
  padding: number;
}

/**
 * Lays a plan out in slots, the same number on every rank of every layer: a device's own experts ascending, then its copies, then
 * further copies where it holds fewer than the fullest. Those are the experts that the layer uses or copies most and the device lacks:
 * a copy spares work for tokens at home, and never changes what is computed.
 *
 * @param popularity [L][N] uses of each expert, when known
 */
export function layOutSlots(plan: Plan, popularity?: ArrayLike<number>): ExpertSlots {
  const { layers, devices, experts } = plan;
  const held = Array.from({ length: layers }, (_, layer) =>
    Array.from({ length: devices }, (__, device) => [
      ...ownedBy(plan, layer, device),
      ...copiesOn(plan, layer, device),
    ]),
  );
  const slotsPerRank = Math.max(...held.flat().map(({ length }) => length));
  const expertOfSlot = new Uint16Array(layers * devices * slotsPerRank);
  let padding = 0;
  held.forEach((ofLayer, layer) => {
    const order = byUse(plan, layer, popularity);
    ofLayer.forEach((onDevice, device) => {
      const lacking = order.filter((expert) => !onDevice.includes(expert)).slice(0, slotsPerRank - onDevice.length);
      padding += lacking.length;
      expertOfSlot.set([...onDevice, ...lacking], (layer * devices + device) * slotsPerRank);
    });
  });
  return { layers, ranks: devices, slotsPerRank, experts, expertOfSlot, padding };
}

/** Experts beyond one of each. */
export function redundantExperts({ ranks, slotsPerRank, experts }: ExpertSlots): number {
  return ranks * slotsPerRank - experts;
}

/** [R * S] one layer's slots. */
export function slotsOfLayer({ ranks, slotsPerRank, expertOfSlot }: ExpertSlots, layer: number): number[] {
  return [...expertOfSlot.subarray(layer * ranks * slotsPerRank, (layer + 1) * ranks * slotsPerRank)];
}

/** [R * S] slots for a layer without experts, which engines want filled all the same: expert after expert, none twice on a rank. */
export function contiguousSlots({ ranks, slotsPerRank, experts }: ExpertSlots): number[] {
  return Array.from({ length: ranks }, (_, rank) => {
    const first = Math.floor((rank * experts) / ranks);
    return Array.from({ length: slotsPerRank }, (__, slot) => (first + slot) % experts);
  }).flat();
}

export function ownedBy({ experts, expertOwner }: Plan, layer: number, device: number): number[] {
  return Array.from({ length: experts }, (_, expert) => expert).filter(
    (expert) => expertOwner[layer * experts + expert] === device,
  );
}

export function copiesOn({ replicas }: Plan, layer: number, device: number): number[] {
  return replicas[layer]?.[device] ?? [];
}

export function hasCopies({ replicas }: Plan): boolean {
  return replicas.some((ofLayer) => ofLayer.some((copies) => copies.length > 0));
}

/** Most used first, then those the plan copies most, then the lower id. */
function byUse({ experts, replicas }: Plan, layer: number, popularity?: ArrayLike<number>): number[] {
  const copies = new Int32Array(experts);
  for (const onDevice of replicas[layer] ?? []) for (const expert of onDevice) copies[expert]!++;
  const uses = (expert: number): number => popularity?.[layer * experts + expert] ?? 0;
  return Array.from(copies.keys()).sort((a, b) => uses(b) - uses(a) || copies[b]! - copies[a]! || a - b);
}
