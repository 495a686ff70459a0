/** The file of results: written after every cell, raw samples kept, read again to go on and to report. */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { ExchangeCost } from '../../src/calibrate/exchange-cost.ts';
import type { Calibration } from '../../src/calibrate/calibration.ts';
import type { RunReport } from '../../src/engine/api.ts';
import type { PathMeasurement } from '../../src/testbed/measure.ts';
import type { PlanName } from './matrix.ts';

/** Per repeat. Milliseconds; latencies are medians over the requests of the run. */
export interface Samples {
  e2eMs: number[];
  ttftMs: number[];
  tpotMs: number[];
  /** Sum over steps that compute prompts, and over those that only decode. */
  prefillStepsMs: number[];
  decodeStepsMs: number[];
  /** Sum over steps of the slowest rank's computing. */
  computeMs: number[];
  /** Sum over steps, mean over ranks: the whole; predicting devices; choosing slices and moving rows there and back. */
  rankMs: number[];
  predictMs: number[];
  shuffleMs: number[];
}

export interface SetupResult {
  setup: string;
  plan: PlanName;
  bytes: RunReport['bytes'];
  messages: number;
  localActivationRate: number;
  remoteDevicesPerToken: number;
  loadImbalance: number;
  /** Null without prediction. */
  recall: number | null;
  prefillSteps: number;
  decodeSteps: number;
  /** Logits of the checked run and tokens of every run equal those of the one-rank run of the plan. */
  bitIdentical: boolean;
  samples: Samples;
}

export interface CellResult {
  cell: string;
  network: string;
  layout: string;
  workload: string;
  sequences: number;
  promptTokens: number;
  newTokens: number;
  repeats: number;
  seconds: number;
  measuredAt: string;
  setups: SetupResult[];
}

export interface NetworkResult {
  network: string;
  title: string;
  rateMbit: number | null;
  latencyUs: number;
  ranksPerNode: number;
  latencyMechanism: string;
  measured: PathMeasurement[];
  /** All-to-all among the ranks, for the simulator. */
  exchange?: ExchangeCost;
}

/** Hashes of a one-rank run. */
export interface Reference {
  outputSha256: string;
  logitsSha256: string;
  /** Latency of one rank on one core, on the contiguous plan; a few repeats. */
  e2eMs?: number[];
}

export interface Results {
  version: 1;
  machine: string;
  repeats: number;
  matrix: string;
  stepTokens: number;
  /** SHA-256 of each plan file. */
  plans: Record<PlanName, string>;
  /** By plan, then by requests (requestsKey). */
  references: Record<string, Record<string, Reference>>;
  /** What this machine's cores and transports do, for the simulator; by transport. */
  calibrations: Partial<Record<'threads' | 'mpi', Calibration>>;
  networks: NetworkResult[];
  cells: CellResult[];
  /** By cell and setup: time of a step according to the simulator, milliseconds; made by the report. */
  predictedStepMs?: Record<string, Record<string, number>>;
}

/** Names the requests of a cell. */
export function requestsKey(cell: Pick<CellResult, 'sequences' | 'promptTokens' | 'newTokens'>): string {
  return `${cell.sequences} x ${cell.promptTokens}+${cell.newTokens}`;
}

export function readResults(path: string): Results | undefined {
  if (!existsSync(path)) return undefined;
  const results = JSON.parse(readFileSync(path, 'utf8')) as Results;
  if (results.version !== 1) throw new Error(`${path}: version ${String(results.version)} is not known`);
  return results;
}

/** One line per cell and setup, so that the file stays small and its changes readable. */
export function writeResults(path: string, results: Results): void {
  const { networks, cells, ...facts } = results;
  const lines = (items: unknown[]): string => items.map((item) => JSON.stringify(item)).join(',\n');
  const cell = ({ setups, ...rest }: CellResult): string =>
    `${JSON.stringify(rest).slice(0, -1)},"setups":[\n${lines(setups)}]}`;
  const text =
    `${JSON.stringify(facts).slice(0, -1)},\n"networks":[\n${lines(networks)}],\n` +
    `"cells":[\n${cells.map(cell).join(',\n')}]}\n`;
  writeFileSync(`${path}.tmp`, text);
  renameSync(`${path}.tmp`, path);
}

/** Replaces what has the same key, else appends. */
export function upsert<Item>(items: Item[], item: Item, key: (item: Item) => string): void {
  const at = items.findIndex((existing) => key(existing) === key(item));
  if (at === -1) items.push(item);
  else items[at] = item;
}
