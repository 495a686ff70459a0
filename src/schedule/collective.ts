import type { CommunicationRequest, Purpose } from '../comm/communicator.ts';

/** A collective under way, with the bytes this rank hands to and gets from other ranks. */
export interface Collective {
  request: CommunicationRequest;
  purpose: Purpose;
  /** performance.now() of its start. */
  startedAt: number;
  sent: number;
  /** Known when it is complete. */
  received: () => number;
}

/** Just started. */
export function collective(
  request: CommunicationRequest,
  purpose: Purpose,
  sent: number,
  received: () => number,
): Collective {
  return { request, purpose, startedAt: performance.now(), sent, received };
}

/** An all-to-all with these bytes to and, on completion, from each rank. */
export function allToAll(
  request: CommunicationRequest,
  purpose: Purpose,
  rank: number,
  sendBytes: Int32Array,
  receiveBytes: Int32Array,
): Collective {
  return collective(request, purpose, toOthers(sendBytes, rank), () => toOthers(receiveBytes, rank));
}

/** Every rank's part to all. @param bytes [ranks] */
export function allGather(
  request: CommunicationRequest,
  purpose: Purpose,
  rank: number,
  bytes: Int32Array,
): Collective {
  return collective(request, purpose, bytes[rank]! * (bytes.length - 1), () => toOthers(bytes, rank));
}

/** Every rank keeps the sum of its part. @param floats [ranks] */
export function reduceScatter(
  request: CommunicationRequest,
  purpose: Purpose,
  rank: number,
  floats: Int32Array,
): Collective {
  const received = 4 * floats[rank]! * (floats.length - 1);
  return collective(request, purpose, 4 * toOthers(floats, rank), () => received);
}

function toOthers(counts: Int32Array, rank: number): number {
  let sum = -counts[rank]!;
  for (const count of counts) sum += count;
  return sum;
}
