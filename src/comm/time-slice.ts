/**
 * Linux's scheduler lets a thread that has a core keep it for a slice, some 3 ms, before another that has just become ready gets it. With more
 * ranks than cores a rank whose data have arrived waits that long in every exchange. A thread may ask for shorter slices (since Linux 6.12,
 * in `sched_runtime` of sched_setattr(2)): it is put on a core sooner, for a shorter time; its share of the core stays as it is.
 */
import { loadKoffi } from './mpi-library.ts';

/** Microseconds: the shortest the kernel grants. */
export const shortSliceUs = 100;

/** Numbers of the system calls sched_setattr and sched_getattr. */
const systemCalls: Partial<Record<NodeJS.Architecture, { set: number; get: number }>> = {
  x64: { set: 314, get: 315 },
  arm64: { set: 274, get: 275 },
};
/** struct sched_attr: u32 size, policy; u64 flags; s32 nice; u32 priority; u64 runtime, deadline, period. */
const attributeBytes = 48;
const policyAt = 4;
const runtimeAt = 24;
const ordinaryPolicies: ReadonlySet<number> = new Set([0, 3]);

type SystemCall = (number: number, thread: number, attributes: Buffer, last: number, flags: number) => number;

/**
 * Asks for slices of so many microseconds for the calling thread; nothing else of how it is scheduled changes. Returns whether the
 * kernel agreed: it knows no such thing on other systems, before Linux 6.12, and for threads of real-time policies.
 */
export function requestTimeSlice(microseconds: number): boolean {
  const numbers = systemCalls[process.arch];
  if (process.platform !== 'linux' || numbers === undefined) return false;
  const call = systemCall();
  const attributes = Buffer.alloc(attributeBytes);
  if (call(numbers.get, 0, attributes, attributeBytes, 0) !== 0) return false;
  if (!ordinaryPolicies.has(attributes.readUInt32LE(policyAt))) return false;
  attributes.writeBigUInt64LE(BigInt(Math.round(microseconds * 1000)), runtimeAt);
  return call(numbers.set, 0, attributes, 0, 0) === 0 && timeSlice() === microseconds;
}

/** Microseconds the calling thread has asked for or been given; undefined where the kernel does not tell. */
export function timeSlice(): number | undefined {
  const numbers = systemCalls[process.arch];
  if (process.platform !== 'linux' || numbers === undefined) return undefined;
  const attributes = Buffer.alloc(attributeBytes);
  if (systemCall()(numbers.get, 0, attributes, attributeBytes, 0) !== 0) return undefined;
  const runtime = Number(attributes.readBigUInt64LE(runtimeAt)) / 1000;
  return runtime === 0 ? undefined : runtime;
}

/** `SMOE_TIME_SLICE_US`: microseconds, or 0 to leave ranks as the system has them. */
export function shortenTimeSlice(wanted: string | undefined = process.env.SMOE_TIME_SLICE_US): void {
  const microseconds = wanted === undefined ? shortSliceUs : Number(wanted);
  if (microseconds > 0) requestTimeSlice(microseconds);
}

function systemCall(): SystemCall {
  return loadKoffi().load(null).func('syscall', 'long', ['long', 'int', 'void *', 'uint', 'uint']) as SystemCall;
}
