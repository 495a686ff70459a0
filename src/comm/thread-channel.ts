/**
 * One communicator's shared slots, seen from one rank: claim a slot, describe an operation, tell the peers.
 *
 * Collectives are numbered; number n uses slot n modulo `slotCount`. The counters of a slot only ever grow (modulo
 * 2^32) by one per rank and use, so "all ranks" is a comparison with a target that each rank computes by itself.
 */
import { ChannelLayout, createChannelArea, DescriptorWord, SlotWord, slotCount } from './control-area.ts';
import type { ThreadEndpoint } from './thread-endpoint.ts';
import { TreeSum } from './tree-sum.ts';

export class ThreadChannel {
  readonly endpoint: ThreadEndpoint;
  /** Rank in the group of each rank of this communicator. */
  readonly members: number[];
  readonly rank: number;
  readonly size: number;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly bytes: Uint8Array;
  readonly floats: Float32Array;
  private readonly doubles: Float64Array;
  readonly layout: ChannelLayout;
  readonly treeSum: TreeSum;
  private sequence = 0;
  /** Values of `arrived` and `finished` once every rank has passed the latest use of the slot. */
  private readonly targets: Int32Array = new Int32Array(slotCount);
  /** The same for `reduced`, which only large all-reduces count. */
  private readonly reducedTargets: Int32Array = new Int32Array(slotCount);

  constructor(endpoint: ThreadEndpoint, members: number[], area: Int32Array<SharedArrayBuffer>) {
    this.endpoint = endpoint;
    this.members = members;
    this.rank = members.indexOf(endpoint.rank);
    this.size = members.length;
    this.words = area;
    this.bytes = new Uint8Array(area.buffer);
    this.floats = new Float32Array(area.buffer);
    this.doubles = new Float64Array(area.buffer);
    this.layout = new ChannelLayout(this.size);
    this.treeSum = new TreeSum(this.size);
  }

  /** Next sequence number; blocks while the operation `slotCount` before it is still under way on some rank. */
  claim(): number {
    const sequence = (this.sequence + 1) | 0;
    const slot = slotOf(sequence);
    const target = this.targets[slot];
    if (!this.allFinished(sequence, target)) {
      this.wantEnd((sequence - slotCount) | 0);
      this.endpoint.sleepUntil(() => this.allFinished(sequence, target));
    }
    this.sequence = sequence;
    this.targets[slot] += this.size;
    return sequence;
  }

  /** Value that the counters of the operation reach when every rank has passed them; valid until the next `claim`. */
  targetOf(sequence: number): number {
    return this.targets[slotOf(sequence)];
  }

  descriptorAt(sequence: number, rank: number): number {
    return this.layout.descriptorAt(slotOf(sequence), rank);
  }

  /** Makes this rank's descriptor readable; the last rank to do so wakes the others, any rank does when `early`. */
  publish(sequence: number, early: boolean): void {
    Atomics.store(this.words, this.descriptorAt(sequence, this.rank) + DescriptorWord.posted, sequence);
    const last = this.increment(sequence, SlotWord.arrived) === this.targetOf(sequence);
    if (last || early) this.ringPeers();
  }

  publishReduced(sequence: number): void {
    Atomics.store(this.words, this.descriptorAt(sequence, this.rank) + DescriptorWord.reduced, sequence);
    const target = (this.reducedTargets[slotOf(sequence)] += this.size);
    if (this.increment(sequence, SlotWord.reduced) === target) this.ringPeers();
  }

  publishFinished(sequence: number): void {
    if (this.increment(sequence, SlotWord.finished) !== this.targetOf(sequence)) return;
    const at = this.slotAt(sequence);
    // A later number means that a peer has gone on already; others may still sleep for this one.
    if (((Atomics.load(this.words, at + SlotWord.endWanted) - sequence) | 0) >= 0) this.ringPeers();
  }

  /** Asks for a ring when every rank has finished the operation. */
  wantEnd(sequence: number): void {
    Atomics.store(this.words, this.slotAt(sequence) + SlotWord.endWanted, sequence);
  }

  hasPosted(sequence: number, rank: number): boolean {
    return Atomics.load(this.words, this.descriptorAt(sequence, rank) + DescriptorWord.posted) === sequence;
  }

  hasReduced(sequence: number, rank: number): boolean {
    return Atomics.load(this.words, this.descriptorAt(sequence, rank) + DescriptorWord.reduced) === sequence;
  }

  allArrived(sequence: number, target: number): boolean {
    return this.counterReached(sequence, SlotWord.arrived, target);
  }

  allFinished(sequence: number, target: number): boolean {
    return this.counterReached(sequence, SlotWord.finished, target);
  }

  /** Tells a peer when the first bit of a message to it arrives; before what is sent is published. */
  announce(sequence: number, round: number, peer: number, arrival: number, bytes: number): void {
    const at = this.arrivalAt(sequence, this.rank, round, peer);
    this.doubles[at] = arrival;
    this.doubles[at + 1] = bytes;
  }

  /** What a peer that has published has announced to this rank. */
  announcedArrival(sequence: number, round: number, peer: number): number {
    return this.doubles[this.arrivalAt(sequence, peer, round, this.rank)];
  }

  announcedBytes(sequence: number, round: number, peer: number): number {
    return this.doubles[this.arrivalAt(sequence, peer, round, this.rank) + 1];
  }

  /** Collective within the new communicator: its first rank makes the control area, the others are sent it. */
  subChannel(members: number[]): ThreadChannel {
    const { endpoint } = this;
    if (members[0] !== endpoint.rank) {
      return new ThreadChannel(endpoint, members, new Int32Array(endpoint.receiveBuffer(members[0])));
    }
    const area = createChannelArea(members.length);
    for (const member of members.slice(1)) endpoint.sendBuffer(member, area.buffer);
    return new ThreadChannel(endpoint, members, area);
  }

  private arrivalAt(sequence: number, sender: number, round: number, receiver: number): number {
    return (this.descriptorAt(sequence, sender) + this.layout.arrivals) / 2 + (round * this.size + receiver) * 2;
  }

  private slotAt(sequence: number): number {
    return this.layout.slotAt(slotOf(sequence));
  }

  private increment(sequence: number, counter: number): number {
    return (Atomics.add(this.words, this.slotAt(sequence) + counter, 1) + 1) | 0;
  }

  private counterReached(sequence: number, counter: number, target: number): boolean {
    return ((Atomics.load(this.words, this.slotAt(sequence) + counter) - target) | 0) >= 0;
  }

  private ringPeers(): void {
    for (let rank = 0; rank < this.size; rank++) {
      if (rank !== this.rank) this.endpoint.ring(this.members[rank]);
    }
  }
}

function slotOf(sequence: number): number {
  return sequence & (slotCount - 1);
}
