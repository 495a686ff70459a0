/** What the network measurement runs: networks, layouts, workloads and setups, and which of them make a cell. */
import type { LinkSettings } from '../../src/comm/link-model.ts';
import {
  type Layout,
  type OverlapName,
  overlapInMemory,
  overlapNames,
  type ScheduleName,
} from '../../src/engine/api.ts';
import { mostOneShotTokens } from '../../src/engine/exchange-choices.ts';
import type { PredictorName } from '../../src/plan/plan.ts';
import { heterogeneous, type Topology } from '../../src/testbed/topology.ts';

export const ranks = 4;

export interface Network {
  name: string;
  title: string;
  /** Ranks as threads of one process; hosts of a testbed with ranks as MPI processes; threads with emulated links. */
  kind: 'memory' | 'testbed' | 'emulated';
  /** Ranks of each node; memory inside, links between. */
  ranksPerNode: number;
  rateMbit: number | null;
  /** One way. */
  latencyUs: number;
}

const shaped: Omit<Network, 'kind'>[] = [
  { name: 'lan-1g', title: '4 hosts, 1 Gbit/s', ranksPerNode: 1, rateMbit: 1000, latencyUs: 0 },
  { name: 'lan-100m', title: '4 hosts, 100 Mbit/s', ranksPerNode: 1, rateMbit: 100, latencyUs: 0 },
  { name: 'nodes-1g', title: '2 nodes of 2 ranks, 1 Gbit/s, 100 us', ranksPerNode: 2, rateMbit: 1000, latencyUs: 100 },
  {
    name: 'nodes-100m',
    title: '2 nodes of 2 ranks, 100 Mbit/s, 100 us',
    ranksPerNode: 2,
    rateMbit: 100,
    latencyUs: 100,
  },
];

export const networks: Network[] = [
  {
    ...{ name: 'memory', title: 'shared memory', kind: 'memory' },
    ...{ ranksPerNode: ranks, rateMbit: null, latencyUs: 0 },
  },
  ...shaped.map((network): Network => ({ ...network, kind: 'testbed' })),
  ...shaped.map((network): Network => ({
    ...network,
    name: `emulated-${network.name}`,
    title: `${network.title}, emulated`,
    kind: 'emulated',
  })),
];

export function topologyOf({ ranksPerNode, rateMbit, latencyUs }: Network, name: string): Topology {
  const host = { ranks: ranksPerNode, rateMbit, latencyUs };
  return heterogeneous({ name, hosts: Array.from({ length: ranks / ranksPerNode }, () => host) });
}

export function linkOf({ ranksPerNode, rateMbit, latencyUs }: Network): LinkSettings {
  return {
    bytesPerSecond: rateMbit === null ? null : (rateMbit * 1e6) / 8,
    latencyMs: latencyUs / 1000,
    ranksPerNode,
  };
}

export function transportName({ kind }: Network): 'threads' | 'mpi' {
  return kind === 'testbed' ? 'mpi' : 'threads';
}

export interface NamedLayout extends Layout {
  name: string;
}

export const layouts: NamedLayout[] = [
  { name: 'TP4', dataParallel: 1, tensorParallel: 4 },
  { name: 'DP4', dataParallel: 4, tensorParallel: 1 },
  { name: '2x2', dataParallel: 2, tensorParallel: 2 },
];

export interface Workload {
  name: string;
  kind: 'prefill' | 'decode';
  /** Of the whole run; at least one for each data-parallel group. */
  sequences(layout: Layout): number;
  promptTokens: number;
  newTokens: number;
}

const prefill = (promptTokens: number): Workload => ({
  name: `prefill-${promptTokens}`,
  kind: 'prefill',
  // Every group prefills a prompt of its own; with one prompt in all, most ranks would have nothing to do.
  sequences: ({ dataParallel }) => dataParallel,
  promptTokens,
  newTokens: 2,
});

const decode = (sequences: number): Workload => ({
  name: `decode-${sequences}`,
  kind: 'decode',
  sequences: () => sequences,
  // Prompts as short as can be, and fewer steps of a large batch: its tokens are what takes the time.
  promptTokens: 2,
  newTokens: sequences <= 16 ? 13 : 5,
});

export const workloads: Workload[] = [
  ...[256, 512, 1024].map(prefill), //
  ...[8, 16, 32, 64].map(decode),
];

export type PlanName = 'contiguous' | 'eplb' | 'grouped' | 'replicas';
export const planNames: PlanName[] = ['contiguous', 'eplb', 'grouped', 'replicas'];

export interface Setup {
  name: string;
  plan: PlanName;
  schedule: ScheduleName;
  predictor: PredictorName;
  overlap: readonly OverlapName[];
  /** Undefined: as the engine chooses. */
  compactRows: boolean | undefined;
  /** Steps of at most so many tokens go one-shot; undefined: as the engine chooses. */
  oneShotTokens: number | undefined;
}

type Exchange = Pick<Setup, 'overlap' | 'compactRows' | 'oneShotTokens'>;

const plain: Omit<Setup, keyof Exchange>[] = [
  { name: 'deepspeed-moe', plan: 'contiguous', schedule: 'deepspeed-moe', predictor: 'combined' },
  { name: 'alltoallv', plan: 'contiguous', schedule: 'alltoallv', predictor: 'combined' },
  { name: 'dedup, contiguous', plan: 'contiguous', schedule: 'dedup', predictor: 'combined' },
  { name: 'dedup, eplb', plan: 'eplb', schedule: 'dedup', predictor: 'combined' },
  { name: 'speculative, token table', plan: 'grouped', schedule: 'speculative', predictor: 'token' },
  { name: 'speculative', plan: 'grouped', schedule: 'speculative', predictor: 'combined' },
  { name: 'speculative, 25 % replicas', plan: 'replicas', schedule: 'speculative', predictor: 'combined' },
];

/** Setups of `plain` once more, with more. */
function variants(names: string[], also: string, more: Exchange): Setup[] {
  return plain
    .filter(({ name }) => names.includes(name))
    .map((setup) => ({ ...setup, ...more, name: `${setup.name}, ${also}` }));
}

const asEnginesDo: Exchange = { overlap: overlapInMemory, compactRows: false, oneShotTokens: 0 };

/**
 * All schedules without micro-batches and with plain rows, as engines run them; two with all overlap; and with compact rows, the last of these
 * being what the engine does over links by default in long steps. What it does in short ones comes last.
 */
export const setups: Setup[] = [
  ...plain.map((setup): Setup => ({ ...setup, ...asEnginesDo })),
  ...variants(['dedup, contiguous', 'speculative'], 'overlapped', { ...asEnginesDo, overlap: overlapNames }),
  ...variants(['speculative', 'speculative, 25 % replicas'], 'compact rows', { ...asEnginesDo, compactRows: true }),
  ...variants(['speculative'], 'overlapped, compact rows', {
    ...asEnginesDo,
    overlap: overlapNames,
    compactRows: true,
  }),
  ...variants(['speculative'], 'one-shot', { ...asEnginesDo, compactRows: undefined, oneShotTokens: undefined }),
];

/**
 * At one tensor rank nothing is shuffled, so all predictors are the same; rows are compact over links, only long steps overlap, and only
 * short ones, of one data-parallel group, go one-shot.
 */
export function setupsOf({ network, layout, workload }: Cell): Setup[] {
  return setups.filter(({ name, overlap, compactRows, oneShotTokens }) => {
    if (oneShotTokens === undefined) {
      const isShort = workload.kind === 'decode' && workload.sequences(layout) <= mostOneShotTokens;
      return isShort && layout.dataParallel === 1;
    }
    if (name === 'speculative, token table') return layout.tensorParallel > 1;
    if (compactRows && network.kind === 'memory') return false;
    return overlap === overlapInMemory || (network.kind !== 'memory' && workload.kind === 'prefill');
  });
}

export interface Cell {
  network: Network;
  layout: NamedLayout;
  workload: Workload;
}

export function cellName({ network, layout, workload }: Cell): string {
  return `${network.name} ${layout.name} ${workload.name}`;
}

export interface Selection {
  networks: string[];
  layouts: string[];
  workloads: string[];
  /** `standard` leaves out cells that take minutes and say nothing that shorter ones do not; `complete` leaves out none. */
  matrix: 'quick' | 'standard' | 'complete';
}

/** Networks outermost, then layouts: sessions are opened once for each. */
export function cellsOf(selection: Selection): Cell[] {
  return networks
    .filter(({ name }) => selection.networks.includes(name))
    .flatMap((network) =>
      layouts
        .filter(({ name }) => selection.layouts.includes(name))
        .flatMap((layout) =>
          workloads
            .filter(({ name }) => selection.workloads.includes(name))
            .filter((workload) => isIn(selection.matrix, network, layout, workload))
            .map((workload) => ({ network, layout, workload })),
        ),
    );
}

/**
 * The time of a cell is its tokens, over all sequences, by the bytes a token costs under `deepspeed-moe` (some 0.5 MB). So the standard matrix
 * has the longer prompts where one of them is the whole batch (TP4), 1024 tokens not at 100 Mbit/s, where they are two steps of 512; and
 * the smallest and the largest decode batch.
 */
function isIn(
  matrix: Selection['matrix'],
  network: Network,
  layout: Layout,
  { name, kind, promptTokens }: Workload,
): boolean {
  if (matrix === 'complete') return true;
  if (matrix === 'quick') return name === 'prefill-256' || name === 'decode-8';
  if (kind === 'decode') return name === 'decode-8' || name === 'decode-64';
  if (promptTokens === 256) return true;
  return layout.tensorParallel === ranks && (promptTokens === 512 || (network.rateMbit ?? 1000) > 100);
}
