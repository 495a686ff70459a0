import { ExitStatus, SmoeError } from '../errors.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { alignDevices } from './alignment.ts';
import { layoutOf } from './device-layout.ts';
import { fallBackToContiguous } from './fallback.ts';
import type { SolveOptions } from './solve.ts';
import { type Placement, type PlacementWish, placementWishes } from './solver.ts';
import { solvers } from './solvers/index.ts';

/** Where experts and copies go: solved on `fit`, held against contiguous placement on `test`, devices named alike over layers. */
export async function placeExperts(
  fit: RoutingTrace,
  test: RoutingTrace,
  solver: string,
  options: SolveOptions,
): Promise<Required<Placement>> {
  const {
    devices,
    seed = 1,
    maximumImbalance = 1.1,
    cluster,
    expertGroups = 0,
    keepGroupsOn = 'device',
    start,
  } = options;
  const { layers, experts } = fit.model;
  const layout = layoutOf(devices, experts, cluster);
  if (start !== undefined) checkStart(options, fit);
  const placement = await solvers[solver]!.solve({
    trace: fit,
    devices,
    seed,
    maximumImbalance,
    strictImbalance: options.maximumImbalance !== undefined,
    layout,
    replicasPerDevice: options.replicasPerDevice ?? 0,
    expertGroups,
    keepGroupsOn,
    onProgress: options.onProgress,
    signal: options.signal,
    ...(start === undefined ? {} : { start: start.expertOwner, movePrice: options.movePrice ?? 0 }),
    ...(options.timeLimitSeconds === undefined ? {} : { timeLimitSeconds: options.timeLimitSeconds }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  if (solvers[solver]!.fallsBack === true)
    fallBackToContiguous(placement, { fit, test, layout, maximumImbalance, expertGroups, keepGroupsOn });
  const { expertOwner, notes } = placement;
  const unheeded = wishesOf(options).filter((wish) => !solvers[solver]!.heeds.includes(wish));
  if (unheeded.length > 0) notes.push(`${solver} does not know of: ${unheeded.join(', ')}`);
  let replicas = placement.replicas ?? Array.from({ length: layers }, () => Array.from({ length: devices }, () => []));
  // Renaming devices would move every expert of a plan in force, and put them on devices of another kind.
  if (start === undefined && cluster === undefined) {
    const before = expertOwner.slice();
    alignDevices(fit, expertOwner, devices);
    replicas = renameReplicas(replicas, before, expertOwner, experts);
  }
  return { expertOwner, replicas, notes };
}

/** What was asked for by name. */
function wishesOf(options: SolveOptions): PlacementWish[] {
  const asked: Record<PlacementWish, boolean> = {
    replicas: (options.replicasPerDevice ?? 0) > 0,
    cluster: Object.keys(options.cluster ?? {}).length > 0,
    'expert groups': (options.expertGroups ?? 0) > 0,
    start: options.start !== undefined,
    'maximum imbalance': options.maximumImbalance !== undefined,
  };
  return placementWishes.filter((wish) => asked[wish]);
}

/** Copies follow the devices that `alignDevices` renamed; every device owns an expert, which tells its new name. */
function renameReplicas(
  replicas: number[][][],
  before: Uint16Array,
  after: Uint16Array,
  experts: number,
): number[][][] {
  return replicas.map((layer, l) => {
    const renamed = layer.slice();
    for (let at = l * experts; at < (l + 1) * experts; at++) renamed[after[at]!] = layer[before[at]!]!;
    return renamed;
  });
}

function checkStart({ start, devices, movePrice = 0 }: SolveOptions, { model }: RoutingTrace): void {
  const other =
    start!.devices !== devices ||
    start!.layers !== model.layers ||
    start!.experts !== model.experts ||
    start!.modelFingerprint !== model.fingerprint;
  if (other) {
    throw new SmoeError('PLAN_OTHER_MODEL', 'the starting plan is for another model or number of devices', {
      hint: `start from a plan of model ${model.fingerprint} for ${devices} devices`,
    });
  }
  if (!(movePrice >= 0)) {
    throw new SmoeError('PLAN_MOVE_PRICE', `the price of moving an expert is ${movePrice}`, {
      hint: 'it is in remote devices per token and not negative: 0.001 moves an expert that saves one row per 1000 tokens',
      exitStatus: ExitStatus.usage,
    });
  }
}
