import type { DeviceLayout } from '../device-layout.ts';

/** [P] experts per device in proportion to its speed as far as the layout allows; on even devices the first N % P own one more. */
export function deviceSizes(experts: number, { devices, fewest, most, speeds }: DeviceLayout): Int32Array {
  const sizes = fewest.slice();
  let left = experts - sizes.reduce((sum, size) => sum + size, 0);
  for (; left > 0; left--) {
    let best = -1;
    for (let device = 0; device < devices; device++) {
      if (sizes[device]! >= most[device]!) continue;
      if (best < 0 || (sizes[device]! + 1) / speeds[device]! < (sizes[best]! + 1) / speeds[best]!) best = device;
    }
    sizes[best]!++;
  }
  return sizes;
}

/**
 * Experts onto devices with the largest load (per speed) as small as this heuristic gets it: heaviest first onto the lightest device
 * with room, then swaps and moves that lower the larger of two devices until none is left.
 *
 * @param loads [N] routed pairs
 * @returns [N] owner
 */
export function mostBalancedOwners(loads: Float64Array, layout: DeviceLayout): Uint16Array {
  const { devices, fewest, most, speeds } = layout;
  const experts = loads.length;
  const owner = new Uint16Array(experts);
  const sizes = new Int32Array(devices);
  const deviceLoads = new Float64Array(devices);
  let missing = fewest.reduce((sum, size) => sum + size, 0);
  let left = experts;
  const order = Array.from(loads.keys()).sort((a, b) => loads[b]! - loads[a]! || a - b);
  for (const expert of order) {
    const after = (device: number): number => deviceLoads[device]! + loads[expert]! / speeds[device]!;
    let best = -1;
    for (let device = 0; device < devices; device++) {
      const hasRoom = sizes[device]! < fewest[device]! || (sizes[device]! < most[device]! && left > missing);
      if (hasRoom && (best < 0 || after(device) < after(best))) best = device;
    }
    if (sizes[best]! < fewest[best]!) missing--;
    left--;
    owner[expert] = best;
    sizes[best]!++;
    deviceLoads[best] = after(best);
  }
  while (improveOnce(loads, owner, sizes, deviceLoads, layout));
  return owner;
}

/** One exchange between the fullest device and another that lowers both below the fullest's load; false when none does. */
function improveOnce(
  loads: Float64Array,
  owner: Uint16Array,
  sizes: Int32Array,
  deviceLoads: Float64Array,
  { fewest, most, speeds }: DeviceLayout,
): boolean {
  let fullest = 0;
  for (let device = 1; device < deviceLoads.length; device++) {
    if (deviceLoads[device]! > deviceLoads[fullest]!) fullest = device;
  }
  const top = deviceLoads[fullest]!;
  let bestLoad = top * (1 - 1e-12);
  let bestGive = -1;
  let bestTake = -1;
  let bestDevice = -1;
  const consider = (give: number, take: number, device: number): void => {
    const shift = loads[give]! - (take < 0 ? 0 : loads[take]!);
    const load = Math.max(top - shift / speeds[fullest]!, deviceLoads[device]! + shift / speeds[device]!);
    if (load < bestLoad) {
      bestLoad = load;
      bestGive = give;
      bestTake = take;
      bestDevice = device;
    }
  };
  for (let give = 0; give < owner.length; give++) {
    if (owner[give] !== fullest) continue;
    for (let take = 0; take < owner.length; take++) {
      if (owner[take] !== fullest) consider(give, take, owner[take]!);
    }
    if (sizes[fullest]! <= fewest[fullest]!) continue;
    for (let device = 0; device < deviceLoads.length; device++) {
      if (device !== fullest && sizes[device]! < most[device]!) consider(give, -1, device);
    }
  }
  if (bestGive < 0) return false;
  const shift = loads[bestGive]! - (bestTake < 0 ? 0 : loads[bestTake]!);
  owner[bestGive] = bestDevice;
  if (bestTake >= 0) owner[bestTake] = fullest;
  else {
    sizes[fullest]!--;
    sizes[bestDevice]!++;
  }
  deviceLoads[fullest]! -= shift / speeds[fullest]!;
  deviceLoads[bestDevice]! += shift / speeds[bestDevice]!;
  return true;
}
