/**
 * Experts onto devices of near-equal size with the largest load as small as this heuristic gets it: heaviest first onto the
 * lightest device with room, then swaps and moves that lower the larger of two devices until none is left.
 *
 * @param loads [N] routed pairs
 * @returns [N] owner
 */
export function mostBalancedOwners(loads: Float64Array, devices: number): Uint16Array {
  const experts = loads.length;
  const owner = new Uint16Array(experts);
  const sizes = new Int32Array(devices);
  const deviceLoads = new Float64Array(devices);
  const least = Math.floor(experts / devices);
  let larger = experts % devices;
  const order = Array.from(loads.keys()).sort((a, b) => loads[b]! - loads[a]! || a - b);
  for (const expert of order) {
    let best = -1;
    for (let device = 0; device < devices; device++) {
      const hasRoom = sizes[device]! < least || (sizes[device] === least && larger > 0);
      if (hasRoom && (best < 0 || deviceLoads[device]! < deviceLoads[best]!)) best = device;
    }
    if (sizes[best] === least) larger--;
    owner[expert] = best;
    sizes[best]!++;
    deviceLoads[best]! += loads[expert]!;
  }
  while (improveOnce(loads, owner, sizes, deviceLoads));
  return owner;
}

/** One exchange between the fullest device and another that lowers both below the fullest's load; false when none does. */
function improveOnce(loads: Float64Array, owner: Uint16Array, sizes: Int32Array, deviceLoads: Float64Array): boolean {
  let fullest = 0;
  for (let device = 1; device < deviceLoads.length; device++) {
    if (deviceLoads[device]! > deviceLoads[fullest]!) fullest = device;
  }
  const top = deviceLoads[fullest]!;
  let bestLoad = top;
  let bestGive = -1;
  let bestTake = -1;
  let bestDevice = -1;
  const consider = (give: number, take: number, device: number): void => {
    const shift = loads[give]! - (take < 0 ? 0 : loads[take]!);
    const load = Math.max(top - shift, deviceLoads[device]! + shift);
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
    for (let device = 0; device < deviceLoads.length; device++) {
      if (sizes[device]! < sizes[fullest]!) consider(give, -1, device);
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
  deviceLoads[fullest]! -= shift;
  deviceLoads[bestDevice]! += shift;
  return true;
}
