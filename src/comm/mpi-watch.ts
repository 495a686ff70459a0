/** Starts a rank's watchdog thread, and tells the ranks where to find that of rank 0. */
import { randomBytes } from 'node:crypto';
import { deserialize, serialize } from 'node:v8';
import { Worker } from 'node:worker_threads';
import type { HeartbeatAddress } from './heartbeat.ts';
import type { MpiEndpoint } from './mpi-endpoint.ts';
import { MailTag } from './mpi-mailbox.ts';
import { siblingModule } from './sibling-module.ts';

/** Who started the processes: this program through an mpirun of its own, or somebody else. */
export type StartedBy = 'launched' | 'joined';

/** `workerData` of a watchdog. */
export interface WatchdogStart {
  rank: number;
  startedBy: StartedBy;
  /** On rank 0, for the server; elsewhere where to connect. */
  token?: string;
  address?: HeartbeatAddress;
}

export interface Watch {
  /** Resolves once this rank is watched, or has said that it cannot be. Needs the event loop and the mail to turn. */
  ready: Promise<void>;
  /** Ends the watch; to be called before the ranks end on purpose. */
  stop(): void;
}

export function watchOver(endpoint: MpiEndpoint, startedBy: StartedBy): Watch {
  const { rank, size, mailbox } = endpoint;
  let worker: Worker | undefined;
  let stopped = false;
  const start = (data: WatchdogStart): Promise<HeartbeatAddress | undefined> => {
    const started = new Worker(siblingModule('mpi-watchdog'), { workerData: data });
    worker = started;
    return new Promise((resolve, reject) => {
      started.once('error', reject);
      started.once('message', (address?: HeartbeatAddress) => {
        started.unref();
        resolve(address);
      });
    });
  };
  const begin = async (): Promise<void> => {
    if (size === 1) return;
    if (rank === 0) {
      const address = await start({ rank, startedBy, token: randomBytes(16).toString('hex') });
      if (stopped) return;
      for (let peer = 1; peer < size; peer++) mailbox.send(peer, MailTag.heartbeat, serialize(address));
      return;
    }
    const address = await new Promise<HeartbeatAddress>((resolve) => {
      endpoint.onHeartbeat = (body) => resolve(deserialize(body) as HeartbeatAddress);
    });
    if (!stopped) await start({ rank, startedBy, address });
  };
  return {
    ready: begin(),
    stop: () => {
      stopped = true;
      worker?.postMessage('stop');
    },
  };
}
