/**
 * Several hosts with shaped links on one machine: network namespaces joined by a bridge. `bringUp` and `takeDown` work across
 * processes; `withTestbed` is for one that must not leave anything behind.
 *
 * @example
 * const figures = await withTestbed(homogeneous({ hosts: 4, rateMbit: 1000, latencyUs: 50 }), async (testbed) => {
 *   const { exitCode } = await testbed.run(0, ['mpirun', ...testbed.mpirunArguments, 'node', 'program.js']);
 *   return { exitCode, links: testbed.measured };
 * });
 */
import { spawn, type StdioOptions } from 'node:child_process';
import { SmoeError } from '../errors.ts';
import { describeSteps, planTestbed, type LatencyMechanism } from './commands.ts';
import { executeSteps, throwIfInterrupted } from './execute.ts';
import { measurePath, pathsToMeasure, type PathMeasurement } from './measure.ts';
import { launchFilesIn, mpirunArguments, onHost, testbedEnvironment, writeLaunchFiles } from './mpi.ts';
import {
  hostAddress,
  hostInterface,
  hostNamespace,
  namespacesOf,
  switchNamespace,
  testbedOfNamespace,
} from './names.ts';
import { endProcessesIn, listTestbedNamespaces, processesIn, removeNamespaces } from './namespaces.ts';
import { startRelay } from './relay-process.ts';
import type { RelayStatistics } from './relay-statistics.ts';
import { requireNamespaces, requireTopology, thisMachine } from './requirements.ts';
import { listStateNames, StateDirectory, type TestbedState } from './state.ts';
import { runCommand, systemPath } from './system.ts';
import { validateName, validateTopology, type Topology } from './topology.ts';

/** How long a command on a testbed may take to end after it was asked to. */
const politeMs = 5000;

const outputStreams: Record<'inherit' | 'stderr' | 'capture', StdioOptions> = {
  inherit: 'inherit',
  stderr: ['inherit', 2, 'inherit'],
  capture: ['ignore', 'pipe', 'pipe'],
};

export interface TestbedHost {
  /** Its namespace and host name. */
  name: string;
  address: string;
  interface: string;
  ranks: number;
  rateMbit: number | null;
  latencyUs: number;
}

export interface TestbedDescription {
  name: string;
  /** `up`, `starting`, or `broken`: parts are missing and only `down` helps. */
  status: 'up' | 'starting' | 'broken';
  createdAt: string | null;
  rateMechanism: 'none' | 'htb' | null;
  latencyMechanism: LatencyMechanism | null;
  hosts: TestbedHost[];
  measured: PathMeasurement[];
  relay: RelayStatistics | null;
}

export interface RunOptions {
  environment?: Record<string, string | undefined>;
  signal?: AbortSignal;
  /** Where the command's output goes: this process's own streams when not given, stderr alone, or text that is handed back. */
  output?: 'inherit' | 'stderr' | 'capture';
}

export interface RunResult {
  exitCode: number | null;
  endedBy: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface BringUpOptions {
  /** Measure the links before returning; about two seconds for each path (pathsToMeasure). Done when not given. */
  measure?: boolean;
  signal?: AbortSignal;
}

/** A testbed that is up. */
export class Testbed {
  readonly topology: Topology;
  readonly latencyMechanism: LatencyMechanism;
  measured: PathMeasurement[];
  readonly #directory: StateDirectory;

  constructor(state: TestbedState) {
    this.topology = state.topology;
    this.latencyMechanism = state.latencyMechanism;
    this.measured = state.measured;
    this.#directory = new StateDirectory(state.topology.name);
  }

  get name(): string {
    return this.topology.name;
  }

  get hosts(): TestbedHost[] {
    return describeHosts(this.topology);
  }

  /** For an `mpirun` that `run` starts on a host. */
  get mpirunArguments(): string[] {
    return mpirunArguments(this.topology, launchFilesIn(this.#directory.path));
  }

  /** A script that runs a command on a host, as ssh would: `agent HOST COMMAND`. */
  get agent(): string {
    return launchFilesIn(this.#directory.path).agent;
  }

  /** SMOE_TESTBED_... and what mpirun needs; `run` sets it. */
  get environment(): Record<string, string> {
    return testbedEnvironment(this.topology, launchFilesIn(this.#directory.path));
  }

  /** What the relay did so far, a second old at most; undefined where there is none. */
  relayStatistics(): RelayStatistics | undefined {
    return this.#directory.relayStatistics();
  }

  /** Measures the links anew; `measured` and the state other processes see are brought up to date. */
  async measure(signal?: AbortSignal): Promise<PathMeasurement[]> {
    const figures: PathMeasurement[] = [];
    for (const [from, to] of pathsToMeasure(this.topology))
      figures.push(await measurePath(this.topology, from, to, signal));
    this.measured = figures;
    const state = this.#directory.read();
    if (state !== undefined) this.#directory.write({ ...state, measured: figures });
    return figures;
  }

  /** Runs a command on a host to its end. When `signal` is aborted, ends the command first. */
  async run(host: number, command: string[], options: RunOptions = {}): Promise<RunResult> {
    const { signal, output = 'inherit' } = options;
    throwIfInterrupted(signal);
    const [program, ...args] = onHost(this.topology, host, command);
    const environment = options.environment ?? process.env;
    const child = spawn(program!, args, {
      stdio: outputStreams[output],
      env: { ...environment, PATH: `${environment.PATH ?? systemPath}:/usr/sbin:/sbin`, ...this.environment },
    });
    let [stdout, stderr] = ['', ''];
    child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    let impatience: NodeJS.Timeout | undefined;
    const end = (): void => {
      child.kill('SIGTERM');
      impatience = setTimeout(() => child.kill('SIGKILL'), politeMs);
    };
    signal?.addEventListener('abort', end);
    try {
      const result = await new Promise<RunResult>((resolve, reject) => {
        child.once('error', reject);
        // Not `close`: what the command left behind may hold its streams open.
        child.once('exit', (exitCode, endedBy) => setImmediate(() => resolve({ exitCode, endedBy, stdout, stderr })));
      });
      throwIfInterrupted(signal);
      return result;
    } finally {
      clearTimeout(impatience);
      signal?.removeEventListener('abort', end);
    }
  }

  /** Removes the testbed with all that runs on it. Does nothing the second time. */
  down(): void {
    removeTestbed(this.name);
  }
}

/** Builds a testbed; when that fails or is interrupted, nothing of it remains. */
export async function bringUp(topology: Topology, { measure = true, signal }: BringUpOptions = {}): Promise<Testbed> {
  validateTopology(topology);
  const latencyMechanism = requireTopology(topology, thisMachine());
  const directory = new StateDirectory(topology.name);
  if (!directory.exists && namespacesNamed(topology.name).length > 0) throw leftovers(topology.name);
  directory.claim();
  const state: TestbedState = {
    version: 1,
    createdAt: new Date().toISOString(),
    phase: 'starting',
    starter: process.pid,
    topology,
    latencyMechanism,
    measured: [],
  };
  // Synchronous, as all of taking down is: a second Ctrl-C that ends this process finds nothing left to leave behind.
  const abandon = (): void => void removeTestbed(topology.name);
  process.once('exit', abandon);
  try {
    directory.write(state);
    writeLaunchFiles(topology, launchFilesIn(directory.path));
    await executeSteps(
      planTestbed(topology, latencyMechanism),
      {
        run: runCommand,
        startRelay: ({ namespace, links }) =>
          startRelay(namespace, { links, statisticsFile: directory.statisticsFile }, directory.relayLog),
        endProcesses: () => endProcessesIn(namespacesNamed(topology.name)),
      },
      signal,
    );
    directory.write({ ...state, phase: 'up' });
    const testbed = new Testbed(state);
    if (measure) await testbed.measure(signal);
    throwIfInterrupted(signal);
    return testbed;
  } catch (error) {
    abandon();
    throw error;
  } finally {
    process.off('exit', abandon);
  }
}

/** A testbed for as long as `use` takes, whatever becomes of it: an error, an aborted signal, the end of this process. */
export async function withTestbed<Result>(
  topology: Topology,
  use: (testbed: Testbed) => Promise<Result>,
  options: BringUpOptions = {},
): Promise<Result> {
  const testbed = await bringUp(topology, options);
  const abandon = (): void => testbed.down();
  process.once('exit', abandon);
  try {
    return await use(testbed);
  } finally {
    process.off('exit', abandon);
    testbed.down();
  }
}

/** The testbed of that name, when it is up. */
export function openTestbed(name: string): Testbed {
  const description = findTestbed(name);
  if (description.status === 'up') return new Testbed(new StateDirectory(name).read()!);
  throw new SmoeError('TESTBED_BROKEN', `the testbed ${JSON.stringify(name)} is ${description.status}, not up`, {
    hint: `remove it with smoe testbed down ${name}`,
  });
}

/** The steps that `bringUp` would take; an ordinary user may ask too, and is told those for a kernel that has netem. */
export function dryRun(topology: Topology): string[] {
  const delayed = topology.hosts.some(({ latencyUs }) => latencyUs > 0);
  const machine = thisMachine();
  const mechanism = machine.root ? requireTopology(topology, machine) : delayed ? 'netem' : 'none';
  return describeSteps(planTestbed(topology, mechanism));
}

/** Removes a testbed, also one of which only parts are left; returns whether there was anything to remove. */
export function takeDown(name: string): boolean {
  requireNamespaces(thisMachine());
  return removeTestbed(validateName(name));
}

export function listTestbeds(): TestbedDescription[] {
  requireNamespaces(thisMachine());
  const names = new Set([
    ...listStateNames(),
    ...listTestbedNamespaces().map((namespace) => testbedOfNamespace(namespace)!),
  ]);
  return [...names].sort().flatMap((name) => describeTestbed(name) ?? []);
}

/** The testbed of that name, whatever its state. */
export function findTestbed(name: string): TestbedDescription {
  requireNamespaces(thisMachine());
  const description = describeTestbed(validateName(name));
  if (description === undefined) throw unknownTestbed(name);
  return description;
}

export function describeTestbed(name: string): TestbedDescription | undefined {
  const directory = new StateDirectory(name);
  const namespaces = namespacesNamed(name);
  const state = directory.read();
  if (state === undefined) {
    if (!directory.exists && namespaces.length === 0) return undefined;
    const unknown = { createdAt: null, rateMechanism: null, latencyMechanism: null, relay: null };
    return { name, status: 'broken', ...unknown, hosts: [], measured: [] };
  }
  const { topology, latencyMechanism, createdAt, measured } = state;
  return {
    name,
    status: statusOf(state, namespaces),
    createdAt,
    rateMechanism: topology.hosts.some(({ rateMbit }) => rateMbit !== null) ? 'htb' : 'none',
    latencyMechanism,
    hosts: describeHosts(topology),
    measured,
    relay: directory.relayStatistics() ?? null,
  };
}

function statusOf(
  { phase, starter, topology, latencyMechanism }: TestbedState,
  namespaces: string[],
): TestbedDescription['status'] {
  if (phase === 'starting') return isRunning(starter) ? 'starting' : 'broken';
  const complete = namespacesOf(topology.name, topology.hosts.length).every((namespace) =>
    namespaces.includes(namespace),
  );
  const relayed = latencyMechanism !== 'relay' || processesIn(switchNamespace(topology.name)).length > 0;
  return complete && relayed ? 'up' : 'broken';
}

function describeHosts({ name, hosts }: Topology): TestbedHost[] {
  return hosts.map(({ ranks, rateMbit, latencyUs }, host) => ({
    name: hostNamespace(name, host),
    address: hostAddress(host),
    interface: hostInterface,
    ranks,
    rateMbit,
    latencyUs,
  }));
}

function removeTestbed(name: string): boolean {
  const directory = new StateDirectory(name);
  const namespaces = namespacesNamed(name);
  if (!directory.exists && namespaces.length === 0) return false;
  removeNamespaces(namespaces);
  directory.remove();
  return true;
}

function namespacesNamed(name: string): string[] {
  return listTestbedNamespaces().filter((namespace) => testbedOfNamespace(namespace) === name);
}

function isRunning(process_: number): boolean {
  try {
    process.kill(process_, 0);
    return true;
  } catch {
    return false;
  }
}

function leftovers(name: string): SmoeError {
  return new SmoeError('TESTBED_STALE', `namespaces of an earlier testbed ${JSON.stringify(name)} are left`, {
    hint: `remove them with smoe testbed down ${name}`,
  });
}

function unknownTestbed(name: string): SmoeError {
  return new SmoeError('TESTBED_UNKNOWN', `there is no testbed ${JSON.stringify(name)}`, {
    hint: 'see smoe testbed status',
  });
}
