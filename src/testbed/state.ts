/**
 * What is remembered of a testbed between processes: one directory each, under $XDG_RUNTIME_DIR or /run, gone at reboot as the
 * namespaces are. The directory is also the lock: only one process can make it.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { SmoeError } from '../errors.ts';
import type { LatencyMechanism } from './commands.ts';
import type { PathMeasurement } from './measure.ts';
import { decodeStatistics, type RelayStatistics } from './relay-statistics.ts';
import type { Topology } from './topology.ts';

const version = 1;

export interface TestbedState {
  version: typeof version;
  createdAt: string;
  /** `starting` until every step is done; `starter` is the process that does them. */
  phase: 'starting' | 'up';
  starter: number;
  topology: Topology;
  latencyMechanism: LatencyMechanism;
  measured: PathMeasurement[];
}

export function stateRoot(environment: NodeJS.ProcessEnv = process.env): string {
  return join(environment.XDG_RUNTIME_DIR || '/run', 'smoe', 'testbed');
}

export class StateDirectory {
  readonly path: string;
  readonly name: string;

  constructor(name: string, root: string = stateRoot()) {
    this.name = name;
    this.path = join(root, name);
  }

  get stateFile(): string {
    return join(this.path, 'state.json');
  }

  get statisticsFile(): string {
    return join(this.path, 'relay.statistics');
  }

  get relayLog(): string {
    return join(this.path, 'relay.log');
  }

  get exists(): boolean {
    return existsSync(this.path);
  }

  /** Takes the name; throws when another testbed has it. */
  claim(): void {
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
    try {
      mkdirSync(this.path, { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      throw new SmoeError('TESTBED_EXISTS', `there is a testbed ${JSON.stringify(this.name)} already`, {
        hint: `see smoe testbed status; remove it with smoe testbed down ${this.name}`,
      });
    }
  }

  /** Readers see the old state or the new one, never part of it. */
  write(state: TestbedState): void {
    const temporary = `${this.stateFile}.new`;
    writeFileSync(temporary, `${JSON.stringify(state, undefined, 2)}\n`, { mode: 0o600 });
    renameSync(temporary, this.stateFile);
  }

  /** Undefined when there is none, or none that this version can read. */
  read(): TestbedState | undefined {
    const state = readJson<TestbedState>(this.stateFile);
    return state?.version === version ? state : undefined;
  }

  relayStatistics(): RelayStatistics | undefined {
    try {
      return decodeStatistics(readFileSync(this.statisticsFile));
    } catch {
      return undefined;
    }
  }

  /** Removes all of it, and the directories above while they are empty. */
  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
    for (const parent of [dirname(this.path), dirname(dirname(this.path))]) {
      try {
        rmdirSync(parent);
      } catch {
        return;
      }
    }
  }
}

export function listStateNames(root: string = stateRoot()): string[] {
  return existsSync(root) ? readdirSync(root).sort() : [];
}

function readJson<Content>(file: string): Content | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Content;
  } catch {
    return undefined;
  }
}
