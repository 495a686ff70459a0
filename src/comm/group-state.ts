/** The abort flag of a group of ranks, as the ranks and the host that launched them share it. */
import { SmoeError } from '../errors.ts';
import { DoorbellWord, doorbellAt, GroupWord, reasonBytes } from './control-area.ts';

const running = 0;
const writing = 1;
const aborted = 2;
const reasonCodes = ['COMM_ABORTED', 'COMM_MISMATCH'] as const;
export type AbortCode = (typeof reasonCodes)[number];

/** Marks the group as aborted and wakes every rank; the first reason given is the one all ranks report. */
export function abortGroup(group: Int32Array<SharedArrayBuffer>, size: number, code: AbortCode, message: string): void {
  if (Atomics.compareExchange(group, GroupWord.state, running, writing) !== running) return;
  const text = new Uint8Array(group.buffer, GroupWord.reasonText * group.BYTES_PER_ELEMENT, reasonBytes);
  // TextEncoder cannot write into shared memory.
  const encoded = new TextEncoder().encode(message).subarray(0, reasonBytes);
  text.set(encoded);
  group[GroupWord.reasonLength] = encoded.length;
  group[GroupWord.reasonCode] = reasonCodes.indexOf(code);
  Atomics.store(group, GroupWord.state, aborted);
  Atomics.notify(group, GroupWord.state);
  for (let rank = 0; rank < size; rank++) ringDoorbell(group, rank);
}

/** Throws the reason once the group is aborted. */
export function throwIfAborted(group: Int32Array<SharedArrayBuffer>): void {
  if (Atomics.load(group, GroupWord.state) === running) return;
  while (Atomics.load(group, GroupWord.state) === writing) Atomics.wait(group, GroupWord.state, writing);
  const text = new Uint8Array(group.buffer, GroupWord.reasonText * group.BYTES_PER_ELEMENT, reasonBytes);
  const message = new TextDecoder().decode(text.slice(0, group[GroupWord.reasonLength]));
  throw new SmoeError(reasonCodes[group[GroupWord.reasonCode]], message);
}

/** Makes a sleeping rank look again. Costs one atomic addition when it is awake. */
export function ringDoorbell(group: Int32Array<SharedArrayBuffer>, rank: number): void {
  const at = doorbellAt(rank);
  Atomics.add(group, at + DoorbellWord.bell, 1);
  if (Atomics.load(group, at + DoorbellWord.sleeping) === 1) Atomics.notify(group, at + DoorbellWord.bell);
}
