/**
 * Layout of the shared control words of the `threads` transport. All offsets are in 32-bit words.
 *
 * One group area per run: whether it was aborted and why, and one doorbell per rank. A blocked rank sleeps on its
 * own doorbell whatever it waits for, so whoever changes something it may need has one place to ring.
 *
 * One channel area per communicator: `slotCount` slots, used in turn by the collectives of the communicator, each
 * with three counters and one descriptor per rank.
 */

/** Collectives of one communicator that may be in flight at a time; a power of two. */
export const slotCount = 8;

/** Payloads up to this many bytes travel inside the descriptor, so that their sender need not wait for readers. */
export const inlineBytes = 4096;

const wordBytes: number = Int32Array.BYTES_PER_ELEMENT;
/** Words touched by different ranks lie this far apart: one cache line of 64 bytes. */
const lineWords = 16;

/** Most UTF-8 bytes of the message that says why a run was aborted. */
export const reasonBytes = 2048;

export const GroupWord = {
  /** 0 running, 1 reason being written, 2 aborted. */
  state: 0,
  /** 0 = COMM_ABORTED, 1 = COMM_MISMATCH. */
  reasonCode: 1,
  reasonLength: 2,
  reasonText: 16,
  /** After `reasonBytes` of text. */
  doorbells: 528,
} as const;

export const DoorbellWord = {
  /** Counts rings. */
  bell: 0,
  /** 1 while the rank sleeps or is about to. */
  sleeping: 1,
} as const;

export function doorbellAt(rank: number): number {
  return GroupWord.doorbells + rank * lineWords;
}

export function createGroupArea(size: number): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(doorbellAt(size) * wordBytes));
}

export const SlotWord = {
  /** Ranks that have started the collectives of this slot, summed over its uses, modulo 2^32. */
  arrived: 0,
  /** Ranks that have reduced their all-reduce shard, counted alike. */
  reduced: 1,
  /** Ranks that need nothing more from their peers, counted alike. */
  finished: 2,
  /** Latest sequence number whose end somebody sleeps for. */
  endWanted: 3,
} as const;

export const DescriptorWord = {
  /** Sequence number of the collective described; written last. */
  posted: 0,
  /** Sequence number of the all-reduce whose shard of this rank is final. */
  reduced: 1,
  operation: 2,
  /** Root of a broadcast, full length of an all-reduce-maximum; must agree between ranks. */
  parameter: 3,
  /** Byte address of the payload in the rank's memory. */
  address: 4,
  /** Payload bytes. */
  length: 5,
  /** 1 when the payload is in the descriptor itself. */
  inline: 6,
  /** [size] counts, then [size] displacements, then arrivals (see ChannelLayout), then the inline payload. */
  counts: 16,
} as const;

/** Times that a collective sends messages to every peer: an all-reduce sends shards, then sums. */
export const rounds = 2;
const arrivalWords = 4;

/** Where things are in the channel area of a communicator of `size` ranks. */
export class ChannelLayout {
  readonly displacements: number;
  /** [rounds][size] pairs of float64, written before what they tell of is posted: when a message's first bit arrives, its bytes. */
  readonly arrivals: number;
  readonly inlinePayload: number;
  private readonly descriptorWords: number;
  private readonly slotWords: number;

  constructor(size: number) {
    this.displacements = DescriptorWord.counts + size;
    this.arrivals = roundUp(this.displacements + size, lineWords);
    this.inlinePayload = roundUp(this.arrivals + rounds * size * arrivalWords, lineWords);
    this.descriptorWords = this.inlinePayload + inlineBytes / wordBytes;
    this.slotWords = lineWords + size * this.descriptorWords;
  }

  /** Words of the whole area. */
  get words(): number {
    return slotCount * this.slotWords;
  }

  slotAt(slot: number): number {
    return slot * this.slotWords;
  }

  descriptorAt(slot: number, rank: number): number {
    return this.slotAt(slot) + lineWords + rank * this.descriptorWords;
  }
}

export function createChannelArea(size: number): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(new ChannelLayout(size).words * wordBytes));
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
