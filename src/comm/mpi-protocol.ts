/**
 * What the host of an MPI group and its ranks say to each other, and how it is put on pipes.
 *
 * The host only reaches rank 0, through the standard input and output that mpirun forwards; rank 0 passes messages on by
 * MPI. Errors do not depend on MPI or on rank 0: every rank writes them to its standard error as a marked line.
 */
import { deserialize, serialize } from 'node:v8';
import type { MessageFromRank } from './rank-protocol.ts';

/** A rank's word on what it is, before anything is loaded. */
export interface RankIdentity {
  host: string;
  /** Hash of the compiled program (see mpi-agreement.ts). */
  build: string;
  /** The library it runs, such as "Open MPI v4.1.4". */
  mpi: string;
}

export type MessageToMpiRank =
  | { type: 'start'; entry: string; data: unknown; agreement: Agreement }
  | { type: 'load' }
  | { type: 'job'; job: unknown }
  | { type: 'stop' };

export type MessageFromMpiRank =
  | MessageFromRank
  | { type: 'identity'; identity: RankIdentity }
  | { type: 'agreement'; agreement: Agreement }
  | { type: 'exit'; reason: string };

/** Named values that must be equal on every rank. */
export type Agreement = Record<string, string>;

/** Addressee of a frame for all ranks. */
export const everyRank = -1;

const magic = Buffer.from('\u0000smoe-mpi\u0001');
const frameHeaderBytes: number = magic.length + 8;
/** Ends every frame: Open MPI 5's mpirun holds back what its processes write until their line ends. */
const lineFeed = 10;
const linePrefix = '\u0001smoe-mpi ';

/** A message from or to `rank` as bytes for a pipe. */
export function encodeFrame(rank: number, body: Uint8Array): Uint8Array {
  const frame = Buffer.alloc(frameHeaderBytes + body.byteLength + 1, lineFeed);
  magic.copy(frame);
  frame.writeInt32LE(rank, magic.length);
  frame.writeUInt32LE(body.byteLength, magic.length + 4);
  frame.set(body, frameHeaderBytes);
  return frame;
}

/** Finds frames in a stream of chunks; bytes between frames are not lost but handed to `onStray`. */
export class FrameReader {
  private readonly onFrame: (rank: number, body: Uint8Array) => void;
  private readonly onStray: (bytes: Uint8Array) => void;
  private chunks: Buffer[] = [];
  private held = 0;
  /** Bytes needed before another look makes sense. */
  private needed: number = frameHeaderBytes;

  constructor(onFrame: (rank: number, body: Uint8Array) => void, onStray: (bytes: Uint8Array) => void) {
    this.onFrame = onFrame;
    this.onStray = onStray;
  }

  push(chunk: Buffer): void {
    this.chunks.push(chunk);
    this.held += chunk.length;
    if (this.held < this.needed) return;
    let rest = Buffer.concat(this.chunks);
    for (;;) {
      const start = rest.indexOf(magic);
      const stray = start === -1 ? withoutPartialMagic(rest) : start;
      if (stray > 0) this.onStray(rest.subarray(0, stray));
      rest = rest.subarray(stray);
      this.needed = frameHeaderBytes;
      if (rest.length < this.needed) break;
      this.needed += rest.readUInt32LE(magic.length + 4) + 1;
      if (rest.length < this.needed) break;
      // A copy of its own, so that typed arrays in it are aligned and the chunk can be freed.
      this.onFrame(rest.readInt32LE(magic.length), Uint8Array.from(rest.subarray(frameHeaderBytes, this.needed - 1)));
      rest = rest.subarray(this.needed);
    }
    this.chunks = [rest];
    this.held = rest.length;
  }
}

/** Length of what certainly is no part of a frame: all but an end that may be the beginning of the magic bytes. */
function withoutPartialMagic(bytes: Buffer): number {
  for (let length = Math.min(magic.length - 1, bytes.length); length > 0; length--) {
    if (bytes.subarray(bytes.length - length).equals(magic.subarray(0, length))) return bytes.length - length;
  }
  return bytes.length;
}

/** A message as one line of standard error. It starts with a line feed, should something unfinished stand there. */
export function encodeLine(rank: number, message: MessageFromMpiRank): string {
  return `\n${linePrefix}${serialize({ rank, message }).toString('base64')}\n`;
}

export function decodeLine(line: string): { rank: number; message: MessageFromMpiRank } | undefined {
  const at = line.indexOf(linePrefix);
  if (at === -1) return undefined;
  try {
    return deserialize(Buffer.from(line.slice(at + linePrefix.length).trim(), 'base64')) as ReturnType<
      typeof decodeLine
    >;
  } catch {
    return undefined;
  }
}
