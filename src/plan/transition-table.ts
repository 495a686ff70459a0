import { ExitStatus, SmoeError } from '../errors.ts';
import type { NeededDevices } from './needed-devices.ts';

/** Pseudo-sightings of what one layer less of history says that every estimate starts from. */
const priorSightings = 4;
/** Most bytes all layers' tables may take, and most that a default takes without being asked. */
const mostBytes = 2 ** 28;
const mostDefaultBytes = 2 ** 26;

/** Bytes of [L][P^lookback][P]. */
function tableBytes(layers: number, devices: number, lookback: number): number {
  return layers * devices ** (lookback + 1);
}

/** The lookback to use: the one asked for, or two layers where that many devices leave the tables small; PLAN_LOOKBACK. */
export function chooseLookback(asked: number | undefined, layers: number, devices: number): number {
  if (asked === undefined) return tableBytes(layers, devices, 2) <= mostDefaultBytes ? 2 : 1;
  if (tableBytes(layers, devices, asked) <= mostBytes) return asked;
  const megabytes = Math.round(tableBytes(layers, devices, asked) / 2 ** 20);
  throw new SmoeError('PLAN_LOOKBACK', `a transition table over ${asked} layers takes ${megabytes} MiB`, {
    hint: `with ${devices} devices look fewer layers back`,
    exitStatus: ExitStatus.usage,
  });
}

/**
 * A for one layer: probability x 255 that a device is needed, by the homes in the layers before. A history seldom seen leans on the
 * shorter history it extends, and the shortest on the average token.
 *
 * @param homesBefore homes [n] in the layers before, the nearest first; fewer than `lookback` in the first layers
 * @param average [P] share of tokens that need each device
 * @param table [P^lookback][P] output, see PredictionTables.transitionNeeds
 */
export function fillTransitionTable(
  { lists, counts }: NeededDevices,
  homesBefore: readonly Uint16Array[],
  lookback: number,
  average: Float64Array,
  table: Uint8Array,
): void {
  const devices = average.length;
  const tokens = counts.length;
  const width = lists.length / tokens;
  const history = new Int32Array(tokens);
  let shorter = average;
  const known = homesBefore.slice(0, lookback);
  known.forEach((homes, back) => {
    const histories = devices ** (back + 1);
    const seen = new Float64Array(histories);
    const needed = new Float64Array(histories * devices);
    for (let row = 0; row < tokens; row++) {
      const at = history[row]! * devices + homes[row]!;
      history[row] = at;
      seen[at]!++;
      for (let i = row * width, end = i + counts[row]!; i < end; i++) needed[at * devices + lists[i]!]!++;
    }
    for (let at = 0; at < histories; at++) {
      const parent = Math.floor(at / devices) * devices;
      for (let device = 0; device < devices; device++) {
        const cell = at * devices + device;
        needed[cell] = (needed[cell]! + priorSightings * shorter[parent + device]!) / (seen[at]! + priorSightings);
      }
    }
    shorter = needed;
  });
  // Histories that differ only in layers which do not exist share a row.
  const alike = devices ** (lookback - known.length);
  for (let at = 0; at < table.length; at++) {
    const source = Math.floor(at / devices / alike) * devices + (at % devices);
    table[at] = Math.round(255 * shorter[source]!);
  }
}
