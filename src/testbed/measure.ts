/** Measures what a path between two hosts really carries, with small processes of its own on both of them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { SmoeError } from '../errors.ts';
import { throwIfInterrupted } from './execute.ts';
import { onHost } from './mpi.ts';
import { hostAddress } from './names.ts';
import type { ProbeFigures } from './probe.ts';
import { systemPath } from './system.ts';
import { nominalPath, type Topology } from './topology.ts';

export interface PathMeasurement extends ProbeFigures {
  from: number;
  to: number;
  nominal: { rateMbit: number | null; rttUs: number };
}

const probeEntry = fileURLToPath(new URL('probe.js', import.meta.url));
const limitMs = 30_000;

/** Each host to the next when links differ, otherwise one path for all. */
export function pathsToMeasure({ hosts }: Topology): [from: number, to: number][] {
  const [first] = hosts;
  const alike = hosts.every(
    ({ rateMbit, latencyUs }) => rateMbit === first!.rateMbit && latencyUs === first!.latencyUs,
  );
  return alike ? [[0, 1]] : hosts.map((_, host) => [host, (host + 1) % hosts.length]);
}

export async function measurePath(
  topology: Topology,
  from: number,
  to: number,
  signal?: AbortSignal,
): Promise<PathMeasurement> {
  const receiver = startProbe(topology, to, ['receive']);
  try {
    const port = await firstLine(receiver, signal);
    const sender = startProbe(topology, from, ['send', hostAddress(to), port]);
    const figures = JSON.parse(await firstLine(sender, signal)) as ProbeFigures;
    const { rateMbit, rttUs } = nominalPath(topology, from, to);
    return { from, to, nominal: { rateMbit, rttUs }, ...figures };
  } finally {
    receiver.kill('SIGKILL');
  }
}

function startProbe(topology: Topology, host: number, args: string[]): ChildProcess {
  const [program, ...rest] = onHost(topology, host, [process.execPath, probeEntry, ...args]);
  return spawn(program!, rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: systemPath, NODE_OPTIONS: '' },
  });
}

/** The first line a probe prints; kills it and throws when it ends, takes too long or `signal` is aborted before. */
function firstLine(probe: ChildProcess, signal: AbortSignal | undefined): Promise<string> {
  throwIfInterrupted(signal);
  return new Promise((resolve, reject) => {
    let [printed, complaints] = ['', ''];
    const settle = (act: () => void): void => {
      clearTimeout(limit);
      signal?.removeEventListener('abort', interrupt);
      act();
    };
    const fail = (reason: string): void => {
      probe.kill('SIGKILL');
      settle(() => reject(new SmoeError('TESTBED_MEASURE', `the links could not be measured: ${reason}`)));
    };
    const limit = setTimeout(() => fail(`no answer in ${limitMs / 1000} s`), limitMs);
    const interrupt = (): void => {
      probe.kill('SIGKILL');
      settle(() => {
        try {
          throwIfInterrupted(signal);
        } catch (error) {
          reject(error);
        }
      });
    };
    signal?.addEventListener('abort', interrupt);
    probe.stderr!.on('data', (chunk: Buffer) => (complaints += chunk.toString()));
    probe.stdout!.on('data', (chunk: Buffer) => {
      printed += chunk.toString();
      if (printed.includes('\n')) settle(() => resolve(printed.split('\n')[0]!));
    });
    probe.once('error', (error) => fail(error.message));
    probe.once('close', () => fail(complaints.trim() || 'a probe ended early'));
  });
}
