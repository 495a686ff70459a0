/**
 * A thread beside every rank, for what a rank that computes or waits would never see: rank 0 and the others hear each other's
 * heartbeats. Who is not heard any more is named, and this rank ends, its Open MPI daemon first: cut off, that would go on for
 * many minutes. mpirun then ends the other ranks.
 */
import { readFileSync, rmSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { serializeError, SmoeError } from '../errors.ts';
import { HeartbeatClient, HeartbeatServer, heartbeatTimes, type HeartbeatAddress, type Loss } from './heartbeat.ts';
import { encodeLine } from './mpi-protocol.ts';
import type { WatchdogStart } from './mpi-watch.ts';

const { rank, startedBy, token, address } = workerData as WatchdogStart;
const launched = startedBy === 'launched';
/** Time for the last words to get through before mpirun or its daemon is told to end. */
const lastWordsMs = 500;
/** Time for them to end by themselves. */
const politeMs = 1500;

let stopped = false;
const stops: (() => void)[] = [];
parentPort!.on('message', () => {
  stopped = true;
  for (const stop of stops) stop();
});

let listening: HeartbeatAddress | undefined;
if (token !== undefined) {
  const server = new HeartbeatServer(token, (peer, host, loss) => lose(`rank ${peer} on ${host}`, loss));
  stops.push(() => server.end());
  listening = await server.listen();
}
if (address !== undefined) {
  const client = new HeartbeatClient(address, rank);
  stops.push(() => client.end());
  if (!(await client.start((loss) => lose(`rank 0 on ${address.host}`, loss))) && !stopped) {
    say(
      `smoe: rank ${rank} cannot reach rank 0 at ${address.addresses.join(' or ')}, port ${address.port}: ` +
        'a network cut or a dead host will be noticed late\n',
    );
  }
}
parentPort!.postMessage(listening);

/** Says that a peer is gone, then ends this rank and what keeps it alive. */
function lose(who: string, loss: Loss): void {
  if (stopped) return;
  stopped = true;
  const seconds = heartbeatTimes.silenceMs / 1000;
  const error = new SmoeError(
    loss === 'silent' ? 'RANK_LOST' : 'RANK_DIED',
    loss === 'silent'
      ? `${who} has not been heard from for ${seconds} seconds: its host is down or the network between is cut`
      : `${who} died: it has closed its connection`,
    { hint: 'look at that host and at the network, then start again' },
  );
  say(
    launched
      ? encodeLine(rank, { type: 'error', error: serializeError(error) })
      : `error ${error.code}: rank ${rank}: ${error.message}\nhint: ${error.hint}\n`,
  );
  setTimeout(() => {
    const parent = { pid: process.ppid, isDaemon: /^(orted|prted)$/.test(nameOf(process.ppid)) };
    if (parent.isDaemon) process.kill(parent.pid, 'SIGTERM');
    setTimeout(() => {
      if (parent.isDaemon) {
        kill(parent.pid);
        removeSessionDirectory();
      }
      kill(process.pid);
    }, politeMs);
  }, lastWordsMs);
}

/** What Open MPI's daemon keeps on this host's disk for the run, and removes itself unless it is killed. */
function removeSessionDirectory(): void {
  const directory = /^(.*\/(?:ompi\.[^/]+\/(?:jf|pid)|ompi|prted)\.\d+)(?:\/|$)/.exec(
    process.env.OMPI_FILE_LOCATION ?? '',
  )?.[1];
  if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}

function say(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // Nobody reads it.
  }
}
