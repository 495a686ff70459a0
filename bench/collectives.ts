/**
 * Latency and throughput of the transports: node dist/bench/collectives.js [threads] [mpi] [options for mpirun ...]
 *
 * Without a name every transport that works here is measured; `mpi` needs Open MPI. Options go to mpirun as they are, so that
 * `--mca btl tcp,self` measures TCP on the loopback interface instead of shared memory. Under `smoe testbed run ... --` the ranks of
 * `mpi` are on its hosts.
 *
 * Prints medians over repeats as a Markdown table, with the machine named. Throughput is payload to other ranks, summed over
 * ranks, by the time of the slowest rank. This module is both the recipe and the code each rank runs.
 */
import { availableParallelism, cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';
import type { Communicator } from '../src/comm/communicator.ts';
import { launchMpiRanks, mpiProblem } from '../src/comm/mpi-rank-group.ts';
import { launchRanks, type RankGroup } from '../src/comm/rank-group.ts';
import type { RankContext, RankJob } from '../src/comm/rank-protocol.ts';
import { mpirunArgumentsHere } from '../src/testbed/mpi.ts';

const pairBytes = 2 ** 20;
const repeats = 25;
const smallCallsPerRepeat = 200;

interface Measurement {
  name: string;
  /** Milliseconds per call, one entry per repeat. */
  milliseconds: number[];
  /** Payload this rank sent per call. */
  bytes: number;
}

export function createRank({ communicator, size }: RankContext): RankJob<undefined, Measurement[]> {
  const pages = Math.ceil((2 * size * pairBytes + 65536) / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  communicator.attachMemory(memory);
  const half = size * pairBytes;
  const small = new Float32Array(memory.buffer, 2 * half, 2);
  const send = new Uint8Array(memory.buffer, 0, half);
  const receive = new Uint8Array(memory.buffer, half, half);
  const starts = Int32Array.from({ length: size }, (_, rank) => rank * pairBytes);
  const floats = new Float32Array(memory.buffer, 0, half / 4);
  const shard = new Float32Array(memory.buffer, half, pairBytes / 4);
  const shardCounts = new Int32Array(size).fill(pairBytes / 4);
  // Pages never written all map to one page of zeros, which would flatter every figure.
  new Float32Array(memory.buffer).fill(1);
  return () => [
    measure(communicator, 'barrier', smallCallsPerRepeat, () => communicator.barrier()),
    measure(communicator, 'all-reduce 8 B', smallCallsPerRepeat, () => communicator.allReduce(small, 'control')),
    ...[64, 256, 960, 1024].map((kibibytes) => {
      const sizes = new Int32Array(size).fill(kibibytes * 1024);
      return measure(communicator, `all-to-all ${kibibytes} KiB per pair`, 1, () =>
        communicator.allToAll(send, sizes, starts, receive, sizes, starts, 'control'),
      );
    }),
    measure(communicator, 'reduce-scatter 1 MiB per shard', 1, () =>
      communicator.reduceScatter(floats, shardCounts, shard, 'control'),
    ),
    measure(communicator, 'all-reduce 1 MiB per shard', 1, () => communicator.allReduce(floats, 'control')),
  ];
}

function measure(communicator: Communicator, name: string, calls: number, call: () => void): Measurement {
  const milliseconds: number[] = [];
  let bytes = 0;
  const warmUps = 5;
  for (let repeat = -warmUps; repeat < repeats; repeat++) {
    communicator.barrier();
    const before = communicator.counters.bytes.control;
    const started = performance.now();
    for (let i = 0; i < calls; i++) call();
    if (repeat >= 0) milliseconds.push((performance.now() - started) / calls);
    bytes = (communicator.counters.bytes.control - before) / calls;
  }
  return { name, milliseconds, bytes };
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

type Launch = (size: number) => Promise<RankGroup<undefined, Measurement[]>>;

const entry: URL = new URL(import.meta.url);
const mpirunOptions: string[] = process.argv.slice(2);
const testbedArguments = mpirunArgumentsHere(process.env);
const mpiSizes = testbedArguments === undefined ? [2, 4] : [Number(process.env.SMOE_TESTBED_RANKS)];
const transports: Record<string, { sizes: number[]; launch: Launch }> = {
  threads: { sizes: [2, 4, 8], launch: (size) => launchRanks({ size, entry }) },
  mpi: {
    sizes: mpiSizes,
    launch: (size) => launchMpiRanks({ size, entry, mpirunArguments: [...(testbedArguments ?? []), ...mpirunOptions] }),
  },
};
const wanted: string[] = [];
while (mpirunOptions[0] in transports) wanted.push(mpirunOptions.shift()!);

async function measureTransport(name: string): Promise<void> {
  const { sizes, launch } = transports[name];
  for (const size of sizes) {
    const group = await launch(size);
    const reports = await group.run(undefined);
    await group.close();
    for (const [index, { name: collective }] of reports[0].entries()) {
      const ranks = reports.map((report) => report[index]);
      const slowest = ranks[0].milliseconds.map((_, i) => Math.max(...ranks.map((rank) => rank.milliseconds[i])));
      const milliseconds = median(slowest);
      const bytes = ranks.reduce((sum, rank) => sum + rank.bytes, 0);
      const time = milliseconds < 1 ? `${(milliseconds * 1000).toFixed(1)} us` : `${milliseconds.toFixed(2)} ms`;
      const rate = bytes < 2 ** 20 ? '' : (bytes / 2 ** 20 / (milliseconds / 1000)).toFixed(0);
      console.log(`| ${name} | ${size} | ${collective} | ${time} | ${rate} |`);
    }
  }
}

async function main(): Promise<void> {
  console.log(`${cpus()[0].model}, ${availableParallelism()} cores, Node.js ${process.version}\n`);
  console.log('| transport | ranks | collective | median | MiB/s |\n|---|---|---|---|---|');
  const names = wanted.length > 0 ? wanted : Object.keys(transports);
  const problem = names.includes('mpi') ? await mpiProblem() : undefined;
  for (const name of names) {
    if (name === 'mpi' && problem !== undefined) console.log(`\nmpi left out: ${problem.message}\n${problem.hint}`);
    else await measureTransport(name);
  }
}

if (isMainThread && process.argv[1] === fileURLToPath(import.meta.url)) await main();
