/** Cheap argument checks shared by every transport: linear in the number of ranks, never in the payload. */
import { SmoeError } from '../errors.ts';

/** Throws unless `view` lies in the attached memory; an empty view may come from anywhere. */
export function checkBuffer(view: ArrayBufferView, memory: ArrayBufferLike | undefined, what: string): void {
  if (view.byteLength === 0 || view.buffer === memory) return;
  throw new SmoeError('COMM_BUFFER', `${what} is not a view of this rank's attached memory`, {
    hint:
      memory === undefined
        ? 'call attachMemory on the root communicator first'
        : 'allocate communication buffers in the WebAssembly.Memory given to attachMemory',
  });
}

/** Throws when the two views share bytes, for collectives that write one while peers read the other. */
export function checkDisjoint(send: ArrayBufferView, receive: ArrayBufferView, operation: string): void {
  if (send.byteLength === 0 || receive.byteLength === 0 || send.buffer !== receive.buffer) return;
  const sendEnd = send.byteOffset + send.byteLength;
  const receiveEnd = receive.byteOffset + receive.byteLength;
  if (send.byteOffset < receiveEnd && receive.byteOffset < sendEnd) {
    throw new SmoeError('COMM_BUFFER', `${operation}: send and receive buffers overlap`);
  }
}

/** Sum of one count per rank; throws on a wrong number of counts or a negative one. */
export function sumCounts(counts: Int32Array, size: number, what: string): number {
  if (counts.length !== size) throw countsError(`${what} has ${counts.length} entries for ${size} ranks`);
  let sum = 0;
  for (let rank = 0; rank < size; rank++) {
    if (counts[rank] < 0) throw countsError(`${what}[${rank}] is ${counts[rank]}`);
    sum += counts[rank];
  }
  return sum;
}

/** Throws unless every segment lies inside a buffer of `length`. */
export function checkSegments(
  counts: Int32Array,
  displacements: Int32Array,
  length: number,
  size: number,
  what: string,
): void {
  sumCounts(counts, size, `${what} counts`);
  if (displacements.length !== size) {
    throw countsError(`${what} displacements have ${displacements.length} entries for ${size} ranks`);
  }
  for (let rank = 0; rank < size; rank++) {
    const start = displacements[rank];
    if (start < 0 || start + counts[rank] > length) {
      throw countsError(`${what} segment of rank ${rank} is [${start}, ${start + counts[rank]}) of ${length} bytes`);
    }
  }
}

/** Throws unless `root` is a rank. */
export function checkRoot(root: number, size: number): void {
  if (!Number.isInteger(root) || root < 0 || root >= size) {
    throw new SmoeError('COMM_ROOT', `broadcast root ${root} is no rank of ${size}`);
  }
}

export function countsError(message: string): SmoeError {
  return new SmoeError('COMM_COUNTS', message);
}
