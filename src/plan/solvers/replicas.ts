import type { Copies } from './copies.ts';
import type { Deadline } from './local-search.ts';

/** Credit of a copy that covers a remote device only in part, against one that covers it; by trial. */
const hopes = [0.2, 0.5];
const rounds = 6;
/** Best copies tried for a place; where so many would overload a device, the next would most probably too. */
const mostTries = 12;

/**
 * Fills every device with its number of copies: greedy on exact gains with some credit for partial cover, then copy by copy the best
 * exchange, until a round brings nothing. The best of a few degrees of credit stays. A copy that would overload a device, by the
 * pairs it serves at best homes, is passed over.
 */
export function chooseCopies(copies: Copies, perDevice: number, loadBound: number, deadline: Deadline): void {
  const { devices } = copies.layout;
  let best: { cost: number; held: Uint8Array } | undefined;
  for (const hope of hopes) {
    hold(copies, undefined);
    for (let i = 0; i < perDevice; i++) {
      for (let device = 0; device < devices; device++) addBest(copies, device, hope, loadBound);
    }
    exchangeCopies(copies, loadBound, deadline);
    if (best === undefined || copies.cost < best.cost) best = { cost: copies.cost, held: copies.held.slice() };
    if (deadline.passed()) break;
  }
  hold(copies, best!.held);
}

/** Exchanges copies one by one for better ones until a round brings nothing. */
export function exchangeCopies(copies: Copies, loadBound: number, deadline: Deadline): void {
  for (let round = 0; round < rounds && !deadline.passed(); round++) {
    if (!exchangeAll(copies, loadBound, deadline)) return;
  }
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

/**
 * Adds the copy that saves most among those that overload nothing; false when there is none.
 *
 * @param needed what it has to save
 */
function addBest(copies: Copies, device: number, hope: number, loadBound: number, needed: number = 0): boolean {
  const { owner, held } = copies;
  const { experts } = copies.sets;
  const deltas = new Float64Array(experts);
  copies.addDeltas(device, deltas, hope);
  const order = Array.from(deltas.keys()).filter(
    (expert) => owner[expert] !== device && held[device * experts + expert] === 0 && deltas[expert]! <= -needed,
  );
  order.sort((a, b) => deltas[a]! - deltas[b]! || a - b);
  for (const expert of order.slice(0, mostTries)) {
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
      const lost = copies.remove(expert, device);
      if (!addBest(copies, device, 0, loadBound, lost + 1e-6)) copies.add(expert, device);
    }
  }
  return copies.cost < before - 1e-6;
}

/**
 * Copies chosen on a part of the sets may overload a device on all of them: copies of the fullest device go for ones that fit, or
 * without replacement.
 */
export function dropOverload(copies: Copies, loadBound: number): void {
  const { experts } = copies.sets;
  for (;;) {
    const loads = copies.servedLoads();
    const fullest = loads.indexOf(Math.max(...loads));
    if (loads[fullest]! <= loadBound) return;
    const before = copies.cost;
    let best = -1;
    let bestScore = Number.POSITIVE_INFINITY;
    for (let expert = 0; expert < experts; expert++) {
      if (copies.held[fullest * experts + expert] === 0) continue;
      copies.remove(expert, fullest);
      const relief = loads[fullest]! - copies.servedLoads()[fullest]!;
      const score = relief > 0 ? (copies.cost - before) / relief : Number.POSITIVE_INFINITY;
      copies.add(expert, fullest);
      if (score < bestScore) {
        bestScore = score;
        best = expert;
      }
    }
    // Without a copy to blame the owners' own load is over the bound, which copies cannot mend.
    if (best < 0) return;
    copies.remove(best, fullest);
    addBest(copies, fullest, 0, loadBound);
  }
}
