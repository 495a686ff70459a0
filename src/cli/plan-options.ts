import type { ArgsDef } from 'citty';
import { deviceCount } from '../cluster/cluster.ts';
import { loadCluster } from '../cluster/cluster-file.ts';
import { clusterPresets } from '../cluster/presets.ts';
import { clusterDevices, type WeightBytes } from '../plan/cluster-devices.ts';
import { longestLookback } from '../plan/plan.ts';
import { readPlan } from '../plan/plan-file.ts';
import type { SolveOptions } from '../plan/solve.ts';
import { expertBytes, modelShape, sharedWeightBytes } from '../simulate/model-shape.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';
import { usageError } from './arguments.ts';
import type { Flags } from './flags.ts';
import type { ModelFacts } from './model-directory.ts';

const defaultDevices = 4;
const mostDevices = 256;
const keepers = ['device', 'node'] as const;

/** What a placement must keep to and may use. */
export const placementArgs: ArgsDef = {
  devices: {
    type: 'string',
    valueHint: 'N',
    description: `Devices to spread the experts over; those of --cluster or --start, or ${defaultDevices}, when not given`,
  },
  'max-imbalance': {
    type: 'string',
    valueHint: 'X',
    description:
      'Most routed pairs a device may have in a layer, as a multiple of the mean; exit status 3 where no placement meets it. ' +
      'When not given: 1.1, or the best that can be met, with a note',
  },
  replicas: {
    type: 'string',
    valueHint: 'N|X%',
    default: '0',
    description:
      'Copies of foreign experts per device and layer, as a number or in percent of an even share of experts',
  },
  cluster: {
    type: 'string',
    valueHint: 'FILE',
    description:
      'Nodes, link prices, memory and speeds of the devices: a cluster file (docs/cluster-format.md), or one of: ' +
      Object.keys(clusterPresets).join(', '),
  },
  'expert-groups': {
    type: 'string',
    valueHint: 'N',
    description: 'Keep N blocks of consecutive experts whole: the groups of group-limited routing',
  },
  'keep-groups': {
    type: 'string',
    valueHint: 'device|node',
    default: 'device',
    description: 'What each block stays whole on',
  },
  start: { type: 'string', valueHint: 'PLAN', description: 'Plan in force, to move away from as little as pays' },
  'move-price': {
    type: 'string',
    valueHint: 'X',
    default: '0.001',
    description: 'With --start: remote devices per token that moving one expert of a layer must save',
  },
  lookback: {
    type: 'string',
    valueHint: 'N',
    description: `Layers that the transition table looks back, 1 to ${longestLookback} (2 when not given, 1 for very many devices)`,
  },
  'time-limit': {
    type: 'string',
    valueHint: 'SECONDS',
    description: 'Stop searching then and keep the best so far; such a plan may differ from run to run',
  },
  threads: { type: 'string', valueHint: 'N', description: 'Worker threads; one per core when not given' },
};

/** Reads `placementArgs`; `model` is the trace's model where it is known, and makes a cluster's memory count. */
export function readPlacement(
  flags: Flags,
  { model: { experts, layers } }: RoutingTrace,
  model: ModelFacts | undefined,
): { options: SolveOptions; notes: string[] } {
  const cluster = flags.has('cluster') ? loadCluster(flags.string('cluster')) : undefined;
  const start = flags.has('start') ? readPlan(flags.string('start')) : undefined;
  const known = cluster === undefined ? start?.devices : deviceCount(cluster);
  const devices = flags.has('devices')
    ? flags.integer('devices', { minimum: 1, maximum: mostDevices })
    : (known ?? defaultDevices);
  if (cluster !== undefined && devices !== known) {
    throw usageError('USAGE_BAD_VALUE', `--devices: ${cluster.name} has ${known} devices, not ${devices}`, {
      hint: 'leave --devices out, or describe the cluster you mean',
    });
  }
  const replicasPerDevice = readReplicas(flags, experts / devices);
  const number = (name: string, minimum: number): number | undefined =>
    flags.has(name) ? flags.number(name, { minimum }) : undefined;
  const integer = (name: string, minimum: number, maximum: number): number | undefined =>
    flags.has(name) ? flags.integer(name, { minimum, maximum }) : undefined;
  const given: { [Field in keyof SolveOptions]: SolveOptions[Field] | undefined } = {
    devices,
    replicasPerDevice,
    maximumImbalance: number('max-imbalance', 1),
    expertGroups: integer('expert-groups', 1, experts),
    keepGroupsOn: flags.choice('keep-groups', keepers),
    start,
    movePrice: start === undefined ? undefined : flags.number('move-price', { minimum: 0 }),
    lookback: integer('lookback', 1, longestLookback),
    timeLimitSeconds: number('time-limit', 0),
    threads: integer('threads', 1, 1024),
    seed: flags.integer('seed', { minimum: 0 }),
    cluster:
      cluster === undefined
        ? undefined
        : clusterDevices(
            cluster,
            experts,
            replicasPerDevice,
            model === undefined ? undefined : weightBytes(model, layers),
          ),
  };
  const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const notes =
    cluster !== undefined && model === undefined
      ? [`${cluster.name}: memory is not looked at without the model's sizes; name it with --model`]
      : [];
  return { options: options as unknown as SolveOptions, notes };
}

/** `2` is a count, `25%` a share of the experts a device owns. */
function readReplicas(flags: Flags, evenShare: number): number {
  const text = flags.string('replicas').trim();
  const match = /^(\d+(?:\.\d+)?)\s*(%?)$/.exec(text);
  const value = Number(match?.[1]);
  if (match === null || (match[2] === '' && !Number.isInteger(value))) {
    throw usageError(
      'USAGE_BAD_VALUE',
      `--replicas: ${JSON.stringify(text)} is neither a number of copies nor a share`,
      {
        hint: 'such as 2, or 25%',
      },
    );
  }
  return match[2] === '' ? value : Math.round((value / 100) * evenShare);
}

function weightBytes({ config }: ModelFacts, layers: number): WeightBytes {
  const shape = modelShape(config);
  return { layers, expert: expertBytes(shape), shared: sharedWeightBytes(shape, 1) };
}
