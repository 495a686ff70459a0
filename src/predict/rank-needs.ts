import { certainNeed } from './predictor.ts';

/**
 * needs [T, P] of plan devices -> benefit [T, ranks] of living on each of a tensor group's ranks: the probability that any
 * of the rank's devices is needed, devices taken as independent.
 *
 * @param firstDevice first device of the group's first rank; each rank owns `block` devices from there
 */
export function foldToRanks(
  needs: Uint8Array,
  tokens: number,
  devices: number,
  firstDevice: number,
  block: number,
  ranks: number,
  benefit: Uint8Array,
): void {
  for (let token = 0, at = 0; token < tokens; token++) {
    let device = token * devices + firstDevice;
    for (let rank = 0; rank < ranks; rank++, at++) {
      if (block === 1) {
        benefit[at] = needs[device++]!;
        continue;
      }
      let unneeded = 1;
      for (const end = device + block; device < end; device++) unneeded *= 1 - needs[device]! / certainNeed;
      benefit[at] = Math.round((1 - unneeded) * certainNeed);
    }
  }
}

/** A token's home device: the one of its rank's block that it needs most, the lower at equal need. */
export function neededMost(needs: Uint8Array, token: number, devices: number, first: number, block: number): number {
  const base = token * devices;
  let home = first;
  for (let device = first + 1; device < first + block; device++) {
    if (needs[base + device]! > needs[base + home]!) home = device;
  }
  return home;
}
