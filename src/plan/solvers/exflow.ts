import { ExitStatus, SmoeError } from '../../errors.ts';
import type { RoutingTrace } from '../../trace/routing-trace.ts';
import { bestAssignment } from '../assignment.ts';
import { SeededRandom } from '../seeded-random.ts';
import type { PlacementProblem, PlacementSolver } from '../solver.ts';
import { contiguousOwners } from './contiguous.ts';

const mostSweeps = 50;
const mostStarts = 48;
/** Work of all starts together, in layers x experts^3. */
const startBudget = 1e8;

/** The trace's top-1 experts: by routing weight, or the busiest of a token's experts where weights were not recorded. [n][L] */
export function topExperts(trace: RoutingTrace): Uint16Array {
  const { layers, topK, experts } = trace.model;
  const loads = new Float64Array(layers * experts);
  const { weights } = trace;
  if (weights === undefined) {
    for (let at = 0; at < trace.experts.length; at++)
      loads[(Math.floor(at / topK) % layers) * experts + trace.experts[at]!]!++;
  }
  const top = new Uint16Array(trace.length * layers);
  for (let cell = 0; cell < top.length; cell++) {
    const score = (at: number): number =>
      weights === undefined ? loads[(cell % layers) * experts + trace.experts[at]!]! : weights[at]!;
    let best = cell * topK;
    for (let at = best + 1; at < (cell + 1) * topK; at++) if (score(at) > score(best)) best = at;
    top[cell] = trace.experts[best]!;
  }
  return top;
}

/** [L-1][N][N] tokens whose top-1 expert is a in layer l and b in layer l + 1. */
export function topTransitions(trace: RoutingTrace): Int32Array {
  const { layers, experts } = trace.model;
  const top = topExperts(trace);
  const counts = new Int32Array(Math.max(0, layers - 1) * experts * experts);
  for (let row = 0; row < trace.length; row++) {
    for (let layer = 0; layer + 1 < layers; layer++) {
      const at = row * layers + layer;
      counts[(layer * experts + top[at]!) * experts + top[at + 1]!]!++;
    }
  }
  return counts;
}

/**
 * Tokens times layers whose top-1 expert changes device from one layer to the next: what ExFlow minimises.
 *
 * @param transitions [L-1][N][N]
 * @param owner [L][N]
 */
export function crossings(transitions: Int32Array, owner: Uint16Array, experts: number): number {
  let cost = 0;
  for (let at = 0; at < transitions.length; at++) {
    const from = Math.floor(at / experts);
    const layer = Math.floor(from / experts);
    if (owner[from] !== owner[(layer + 1) * experts + (at % experts)]) cost += transitions[at]!;
  }
  return cost;
}

/**
 * ExFlow's 0/1 program by alternating exact steps: with its neighbours fixed, one layer is an assignment problem. Sweeps to and fro
 * until nothing changes, from the contiguous first layer, from random first layers and from random layers all through; the best stays.
 *
 * @returns [L][N] owner
 */
export function minimiseCrossings(
  transitions: Int32Array,
  layers: number,
  experts: number,
  devices: number,
  random: SeededRandom,
): Uint16Array {
  const perDevice = experts / devices;
  let best: Uint16Array | undefined;
  let bestCost = Number.POSITIVE_INFINITY;
  const starts = Math.max(2, Math.min(mostStarts, Math.round(startBudget / (layers * experts ** 3))));
  for (let start = 0; start < starts; start++) {
    const owner = new Uint16Array(layers * experts);
    const block = Int32Array.from(contiguousOwners(experts, devices));
    for (let layer = 0; layer < layers; layer++) {
      if (start > 0) random.shuffle(block);
      owner.set(block, layer * experts);
    }
    // Forward once with only the layer before known, then with both neighbours.
    for (let layer = start % 2 === 1 ? layers : 1; layer < layers; layer++)
      placeLayer(transitions, owner, layer, layer, layers, experts, perDevice);
    let cost = crossings(transitions, owner, experts);
    for (let sweep = 0; sweep < mostSweeps; sweep++) {
      for (let i = 0; i < layers; i++)
        placeLayer(transitions, owner, sweep % 2 === 0 ? layers - 1 - i : i, layers - 1, layers, experts, perDevice);
      const after = crossings(transitions, owner, experts);
      if (after >= cost) break;
      cost = after;
    }
    if (cost < bestCost) {
      bestCost = cost;
      best = owner;
    }
  }
  return best!;
}

/** The best owners of one layer for the layers around it as they stand, those after `lastKnown` left out. */
function placeLayer(
  transitions: Int32Array,
  owner: Uint16Array,
  layer: number,
  lastKnown: number,
  layers: number,
  experts: number,
  perDevice: number,
): void {
  // [N][N]: column = a place on device column / perDevice.
  const score = new Float64Array(experts * experts);
  const gain = new Float64Array(experts);
  for (let expert = 0; expert < experts; expert++) {
    gain.fill(0);
    for (let other = 0; other < experts; other++) {
      if (layer > 0)
        gain[owner[(layer - 1) * experts + other]!]! +=
          transitions[((layer - 1) * experts + other) * experts + expert]!;
      if (layer + 1 < layers && layer < lastKnown)
        gain[owner[(layer + 1) * experts + other]!]! += transitions[(layer * experts + expert) * experts + other]!;
    }
    for (let place = 0; place < experts; place++)
      score[expert * experts + place] = gain[Math.floor(place / perDevice)]!;
  }
  const placed = bestAssignment(score, experts);
  for (let expert = 0; expert < experts; expert++)
    owner[layer * experts + expert] = Math.floor(placed[expert]! / perDevice);
}

export const exflowSolver: PlacementSolver = {
  name: 'exflow',
  heeds: [],
  async solve({ trace, devices, seed, onProgress }: PlacementProblem) {
    const { layers, experts } = trace.model;
    if (experts % devices !== 0) {
      throw new SmoeError('PLAN_INFEASIBLE', `exflow: ${experts} experts do not divide over ${devices} devices`, {
        hint: 'this solver needs equal shares; hypergraph does not',
        exitStatus: ExitStatus.noFeasiblePlan,
      });
    }
    const expertOwner = minimiseCrossings(topTransitions(trace), layers, experts, devices, new SeededRandom(seed));
    onProgress?.(layers, layers);
    const notes =
      trace.weights === undefined
        ? ["exflow: no routing weights in the trace, a token's busiest expert stands for its top-1"]
        : [];
    return { expertOwner, notes };
  },
};
