import type { Copies } from './copies.ts';
import type { Deadline } from './local-search.ts';

/** Credit of a copy that covers a remote device only in part, against one that covers it; by trial. */
const hopes = [0.2, 0.5, 0];
const rounds = 6;

/**
 * Fills every device with its number of copies: greedy on exact gains with some credit for partial cover, then copy by copy the best
 * exchange, until a round brings nothing. The best of a few degrees of credit stays. A copy that would overload a device, by the
 * pairs it serves at best homes, is passed over.
 */
export function chooseCopies(
  copies: Copies,
  perDevice: number,
  loadBound: number,
  deadline: Deadline,
  degrees: number = hopes.length,
): void {
  const { devices } = copies.layout;
  let best: { cost: number; held: Uint8Array } | undefined;
  for (const hope of hopes.slice(0, degrees)) {
    hold(copies, undefined);
    for (let i = 0; i < perDevice; i++) {
      for (let device = 0; device < devices; device++) addBest(copies, device, hope, loadBound);
    }
    for (let round = 0; round < rounds && !deadline.passed(); round++) {
      if (!exchangeAll(copies, loadBound, deadline)) break;
    }
    if (best === undefined || copies.cost < best.cost) best = { cost: copies.cost, held: copies.held.slice() };
    if (deadline.passed()) break;
  }
  hold(copies, best!.held);
}

/** @param held [P][N] copies to have; none when undefined */
export function hold(copies: Copies, held: Uint8Array | undefined): void {
  const { experts } = copies.sets;
  for (let at = 0; at < copies.held.length; at++) {
    const wanted = held === undefined ? 0 : held[at]!;
    if (copies.held[at] === wanted) continue;
    if (wanted === 1) copies.add(at % experts, Math.floor(at / experts));
    else copies.remove(at % experts, Math.floor(at / experts));
  }
}

/** Adds the copy that saves most among those that overload nothing; false when there is none. */
function addBest(copies: Copies, device: number, hope: number, loadBound: number): boolean {
  const { owner, held } = copies;
  const { experts } = copies.sets;
  const deltas = new Float64Array(experts);
  copies.addDeltas(device, deltas, hope);
  const order = Array.from(deltas.keys()).filter(
    (expert) => owner[expert] !== device && held[device * experts + expert] === 0,
  );
  order.sort((a, b) => deltas[a]! - deltas[b]! || a - b);
  for (const expert of order) {
    copies.add(expert, device);
    if (Math.max(...copies.servedLoads()) <= loadBound) return true;
    copies.remove(expert, device);
  }
  return false;
}

/** Takes out every copy once and puts the best in its place; whether that lowered the cost. */
function exchangeAll(copies: Copies, loadBound: number, deadline: Deadline): boolean {
  const { experts } = copies.sets;
  const before = copies.cost;
  for (let device = 0; device < copies.layout.devices; device++) {
    for (let expert = 0; expert < experts && !deadline.passed(); expert++) {
      if (copies.held[device * experts + expert] === 0) continue;
      const cost = copies.cost;
      copies.remove(expert, device);
      const held = copies.held.slice(device * experts, (device + 1) * experts);
      if (addBest(copies, device, 0, loadBound) && copies.cost < cost - 1e-6) continue;
      for (let other = 0; other < experts; other++) {
        if (copies.held[device * experts + other] === 1 && held[other] === 0) copies.remove(other, device);
      }
      copies.add(expert, device);
    }
  }
  return copies.cost < before - 1e-6;
}
