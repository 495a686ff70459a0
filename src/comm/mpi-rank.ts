/**
 * The process of one rank, as mpirun starts it: node mpi-rank.js SIZE.
 *
 * Whatever prints to standard output, native libraries included, is redirected to standard error first: the real one
 * belongs to the messages for the host.
 */
import { closeSync, writeSync } from 'node:fs';
import { deserialize, serialize } from 'node:v8';
import { serializeError, SmoeError } from '../errors.ts';
import { reasonOf } from './base-rank-group.ts';
import { MpiEndpoint } from './mpi-endpoint.ts';
import { watchOver } from './mpi-watch.ts';
import { attendWhileIdle } from './mpi-idle.ts';
import { loadMpi, loadSystemCalls } from './mpi-library.ts';
import { MailTag } from './mpi-mailbox.ts';
import {
  encodeFrame,
  encodeLine,
  everyRank,
  FrameReader,
  type MessageFromMpiRank,
  type MessageToMpiRank,
} from './mpi-protocol.ts';
import { MpiRankServer } from './mpi-rank-server.ts';

const wantedSize = Number(process.argv[2]);
/** As the launcher numbers it, until MPI says. */
let ownRank = Number(process.env.OMPI_COMM_WORLD_RANK ?? 0);
let ending = false;
const pause = new Int32Array(new SharedArrayBuffer(4));

process.on('uncaughtException', (error) => {
  tellHost({ type: 'exit', reason: reasonOf(error) });
  process.exit(1);
});
process.on('exit', (code) => {
  if (!ending) tellHost({ type: 'exit', reason: `exited with code ${code}` });
});

try {
  serve();
} catch (error) {
  tellHost({ type: 'error', error: serializeError(error) });
  ending = true;
  process.exit(1);
}

function serve(): void {
  const library = loadMpi();
  const system = loadSystemCalls();
  system.dieWithParent();
  const output = system.dup(1);
  system.dup2(2, 1);
  const endpoint = new MpiEndpoint(library);
  const { rank, size, mailbox } = endpoint;
  ownRank = rank;
  if (size !== wantedSize) {
    throw new SmoeError('MPI_FLAVOUR', `mpirun started ${wantedSize} processes, but MPI sees ${size}`, {
      hint: 'use the mpirun that belongs to the MPI library; SMOE_MPIRUN and SMOE_MPI_LIBRARY name others',
    });
  }
  const isFirst = rank === 0;

  const post = (message: MessageFromMpiRank): void => {
    if (message.type === 'error') tellHost(message);
    else if (isFirst) writeAll(output, encodeFrame(rank, serialize(message)));
    else mailbox.send(0, MailTag.message, serialize(message));
  };
  const server = new MpiRankServer(endpoint, post);
  const obey = (body: Uint8Array): void => {
    const message = deserialize(body) as MessageToMpiRank;
    // Not from inside a collective, which may be what looked at the mail.
    if (message.type === 'stop') setImmediate(stop);
    else setImmediate(() => void server.handle(message));
  };
  const stopAttending = attendWhileIdle(endpoint, (error) => tellHost({ type: 'error', error: serializeError(error) }));
  const stop = (): void => {
    ending = true;
    watch.stop();
    stopAttending();
    endpoint.settleMail();
    endpoint.finalize();
    process.exit(0);
  };
  const watch = watchOver(endpoint, 'launched');
  endpoint.onMail = ({ from, body }) => {
    if (isFirst) writeAll(output, encodeFrame(from, body));
    else obey(body);
  };
  if (isFirst) {
    const reader = new FrameReader(
      (to, body) => {
        for (let peer = 1; peer < size; peer++) {
          if (to === everyRank || to === peer) mailbox.send(peer, MailTag.message, body);
        }
        if (to === everyRank || to === 0) obey(body);
      },
      () => undefined,
    );
    process.stdin.on('data', (chunk: Buffer) => reader.push(chunk));
  } else {
    closeSync(output);
  }
  void watch.ready.then(() => server.introduce());
}

/** Errors take the shortest way, which needs neither MPI nor rank 0. */
function tellHost(message: MessageFromMpiRank): void {
  try {
    writeAll(2, Buffer.from(encodeLine(ownRank, message)));
  } catch {
    // The host has gone.
  }
}

function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(descriptor, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      // Sleeping, since mpirun may need this very core to empty the pipe.
      Atomics.wait(pause, 0, 0, 0.5);
    }
  }
}
