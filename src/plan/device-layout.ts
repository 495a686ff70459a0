import { ExitStatus, SmoeError } from '../errors.ts';

/** What a user says about the devices of a plan; everything left out is even. P = devices. */
export interface DeviceDescription {
  /** [P] node of each device, numbered from 0. Without it all devices are one node. */
  nodeOf?: ArrayLike<number>;
  /** Price of one row to another device of the same node, and to another node. */
  innerPrice?: number;
  outerPrice?: number;
  /** [P] most experts a device can own; without it sizes differ by at most one. */
  expertSlots?: ArrayLike<number>;
  /** [P] relative speeds: a device of twice the speed may carry twice the load. */
  speeds?: ArrayLike<number>;
}

/** The same, complete and checked; plain data, so that it can cross threads. */
export interface DeviceLayout {
  devices: number;
  nodes: number;
  /** [P] */
  nodeOf: Uint16Array;
  innerPrice: number;
  outerPrice: number;
  /** [P] fewest and most experts a device may own; every device owns at least one */
  fewest: Int32Array;
  most: Int32Array;
  /** [P] share of the mean load a device is meant to carry; the mean over devices is 1 */
  speeds: Float64Array;
}

/** Completes a description; PLAN_INFEASIBLE names the constraint that no placement of so many experts can meet. */
export function layoutOf(devices: number, experts: number, description: DeviceDescription = {}): DeviceLayout {
  const nodeOf = Uint16Array.from(perDevice('nodeOf', description.nodeOf, devices, 0));
  const nodes = Math.max(...nodeOf) + 1;
  for (let node = 0; node < nodes; node++) {
    if (!nodeOf.includes(node)) throw badLayout(`node ${node} has no device`, 'number nodes from 0 without gaps');
  }
  const { innerPrice = 1, outerPrice = nodes > 1 ? 4 : 1 } = description;
  for (const [name, price] of [
    ['innerPrice', innerPrice],
    ['outerPrice', outerPrice],
  ] as const) {
    if (!(price >= 0 && price < Number.POSITIVE_INFINITY))
      throw badLayout(`${name} is ${price}`, 'prices are finite and not negative');
  }
  if (outerPrice < innerPrice)
    throw badLayout(
      `outerPrice ${outerPrice} is below innerPrice ${innerPrice}`,
      'a row to another node costs at least as much as one inside a node',
    );
  const speeds = Float64Array.from(perDevice('speeds', description.speeds, devices, 1));
  if (speeds.some((speed) => !(speed > 0 && speed < Number.POSITIVE_INFINITY)))
    throw badLayout('a device speed is not positive', 'speeds are relative: 1 and 2 for a device twice as fast');
  const meanSpeed = speeds.reduce((sum, speed) => sum + speed, 0) / devices;
  return {
    devices,
    nodes,
    nodeOf,
    innerPrice,
    outerPrice,
    ...sizeLimits(devices, experts, description.expertSlots),
    speeds: speeds.map((speed) => speed / meanSpeed),
  };
}

function sizeLimits(
  devices: number,
  experts: number,
  slots: ArrayLike<number> | undefined,
): { fewest: Int32Array; most: Int32Array } {
  if (slots === undefined) {
    const fewest = new Int32Array(devices).fill(Math.floor(experts / devices));
    return { fewest, most: new Int32Array(devices).fill(Math.ceil(experts / devices)) };
  }
  const most = Int32Array.from(perDevice('expertSlots', slots, devices, 0));
  const device = most.findIndex((room) => room < 1);
  if (device >= 0)
    throw badLayout(`device ${device} has room for ${most[device]} experts`, 'every device owns at least one');
  const total = most.reduce((sum, room) => sum + room, 0);
  if (total < experts) {
    throw new SmoeError(
      'PLAN_INFEASIBLE',
      `device memory: room for ${total} experts in all, the model has ${experts}`,
      {
        hint: 'use more devices, or ones with more memory',
        exitStatus: ExitStatus.noFeasiblePlan,
      },
    );
  }
  // More room than experts can use is of no use: keeps the number of empty places small.
  return { fewest: new Int32Array(devices).fill(1), most: most.map((room) => Math.min(room, experts - devices + 1)) };
}

function perDevice(name: string, values: ArrayLike<number> | undefined, devices: number, otherwise: number): number[] {
  if (values === undefined) return Array.from({ length: devices }, () => otherwise);
  if (values.length !== devices)
    throw badLayout(`${name} names ${values.length} devices, the plan has ${devices}`, 'give one value per device');
  return Array.from(values);
}

function badLayout(message: string, hint: string): SmoeError {
  return new SmoeError('PLAN_LAYOUT', `device description: ${message}`, { hint, exitStatus: ExitStatus.usage });
}
