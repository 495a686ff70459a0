import type { RoutingTrace } from '../trace/routing-trace.ts';
import { bestAssignment } from './assignment.ts';

const largestSample = 16384;
/** Rows times devices squared: what one layer's agreement costs. */
const largestWork = 2 ** 24;
const rounds = 8;

/**
 * Renames devices layer by layer, so that a token finds its experts on the same device in every layer as far as possible. It
 * changes no layer's cost; under attention data-parallelism, where a request stays on one rank through all layers, it decides
 * how much of the grouping is of use.
 *
 * Agreement of two layers = sum over tokens t and devices d of a(t, d) b(t, d), with a, b the shares of the token's k experts on
 * device d, once per token and once averaged over its request. Starting from layer 0, each layer is given the renaming
 * (an assignment problem) that agrees most with the sum of the others, for a few rounds.
 *
 * @param expertOwner [L][N], changed in place
 */
export function alignDevices(trace: RoutingTrace, expertOwner: Uint16Array, devices: number): void {
  const { layers, experts } = trace.model;
  if (layers < 2 || devices < 2) return;
  const rows = sampleRows(trace.length, Math.min(largestSample, Math.ceil(largestWork / devices ** 2)));
  const width = rows.length * devices;
  const shares = Array.from({ length: layers }, (_, layer) => ownerShares(trace, layer, rows, expertOwner, devices));
  const reference = new Float32Array(width);
  const add = (layer: number, sign: number): void => {
    const share = shares[layer]!;
    for (let i = 0; i < width; i++) reference[i]! += sign * share[i]!;
  };
  add(0, 1);
  for (let round = 0; round < rounds; round++) {
    let changed = false;
    for (let layer = round === 0 ? 1 : 0; layer < layers; layer++) {
      if (round > 0) add(layer, -1);
      const rename = bestAssignment(agreement(shares[layer]!, reference, devices), devices);
      if (rename.some((to, from) => to !== from)) {
        changed = true;
        shares[layer] = renameColumns(shares[layer]!, rename);
        for (let i = layer * experts; i < (layer + 1) * experts; i++) expertOwner[i] = rename[expertOwner[i]!]!;
      }
      add(layer, 1);
    }
    if (!changed) return;
  }
}

/** Evenly spaced rows, all of them when there are few. */
function sampleRows(length: number, most: number): Int32Array {
  const count = Math.min(length, most);
  return new Int32Array(count).map((_, i) => Math.floor((i * length) / count));
}

/** [rows][P] share of the token's experts on each device, plus the mean of that over the token's request. */
function ownerShares(
  trace: RoutingTrace,
  layer: number,
  rows: Int32Array,
  expertOwner: Uint16Array,
  devices: number,
): Float32Array {
  const { layers, topK, experts } = trace.model;
  const shares = new Float32Array(rows.length * devices);
  const requestSum = new Float64Array(devices);
  for (let start = 0; start < rows.length;) {
    const request = trace.request[rows[start]!]!;
    let end = start;
    requestSum.fill(0);
    for (; end < rows.length && trace.request[rows[end]!] === request; end++) {
      const from = (rows[end]! * layers + layer) * topK;
      for (let i = 0; i < topK; i++) {
        const device = expertOwner[layer * experts + trace.experts[from + i]!]!;
        shares[end * devices + device]! += 1 / topK;
        requestSum[device]! += 1 / topK;
      }
    }
    for (let row = start; row < end; row++) {
      for (let device = 0; device < devices; device++)
        shares[row * devices + device]! += requestSum[device]! / (end - start);
    }
    start = end;
  }
  return shares;
}

/** [P][P] sum over rows of shares(row, a) * reference(row, b). */
function agreement(shares: Float32Array, reference: Float32Array, devices: number): Float64Array {
  const score = new Float64Array(devices * devices);
  for (let base = 0; base < shares.length; base += devices) {
    for (let a = 0; a < devices; a++) {
      const share = shares[base + a]!;
      for (let b = 0; b < devices; b++) score[a * devices + b]! += share * reference[base + b]!;
    }
  }
  return score;
}

function renameColumns(shares: Float32Array, rename: Int32Array): Float32Array {
  const devices = rename.length;
  const renamed = new Float32Array(shares.length);
  for (let base = 0; base < shares.length; base += devices) {
    for (let device = 0; device < devices; device++) renamed[base + rename[device]!] = shares[base + device]!;
  }
  return renamed;
}
