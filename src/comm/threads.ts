/**
 * The `threads` transport: one worker thread per rank, peers read each other's shared memory directly.
 *
 * A collective posts a descriptor (what, where, how much) and copies or sums straight from the peers' memories into
 * the receiver's buffer: one copy. Payloads of at most `inlineBytes` travel inside the descriptor instead, so their
 * sender need not wait until all have read them. A blocked rank sleeps; it never polls.
 *
 * At most `slotCount` collectives of one communicator are in flight; starting one more blocks until the oldest ends.
 */
import { BaseCommunicator, sharedBufferOf } from './base-communicator.ts';
import type { CommunicationRequest, Communicator } from './communicator.ts';
import { inlineBytes } from './control-area.ts';
import { ThreadChannel } from './thread-channel.ts';
import { ThreadEndpoint, type ThreadWiring } from './thread-endpoint.ts';
import { AllGatherRequest, AllToAllRequest, BroadcastRequest } from './thread-pull-requests.ts';
import { ThreadRequest } from './thread-request.ts';
import {
  InlineAllReduceRequest,
  MaximumRequest,
  maximumElements,
  ReduceScatterRequest,
  ShardedAllReduceRequest,
  SplitRequest,
} from './thread-sum-requests.ts';

/** The root communicator of this rank; `wiring` comes from `wireThreads` of the launcher. */
export function connectThreads(wiring: ThreadWiring): ThreadCommunicator {
  const members = Array.from({ length: wiring.size }, (_, rank) => rank);
  return new ThreadCommunicator(new ThreadChannel(new ThreadEndpoint(wiring), members, wiring.channel));
}

export class ThreadCommunicator extends BaseCommunicator {
  readonly transport: string = 'threads';
  private readonly channel: ThreadChannel;

  constructor(channel: ThreadChannel) {
    super(channel.rank, channel.size, channel.endpoint.counters);
    this.channel = channel;
  }

  attachMemory(memory: WebAssembly.Memory): void {
    const { endpoint } = this.channel;
    const buffer = sharedBufferOf(memory);
    endpoint.memories.assertNew(buffer);
    this.assertRoot(this.channel.endpoint.size);
    new ThreadRequest(this.channel, { operation: 'attach memory' }).start().wait();
    endpoint.exchangeMemories(buffer);
  }

  useMemory(memory: WebAssembly.Memory): void {
    this.assertRoot(this.channel.endpoint.size);
    this.channel.endpoint.useMemory(sharedBufferOf(memory));
  }

  startBarrier(): CommunicationRequest {
    return new ThreadRequest(this.channel, { operation: 'barrier' }).start();
  }

  split(color: number, key: number): Communicator {
    const request = new SplitRequest(this.channel, color, key).start();
    request.wait();
    const { choices } = request;
    const members = this.channel.members
      .map((member, rank) => ({
        member,
        rank,
        color: choices[2 * rank],
        key: choices[2 * rank + 1],
      }))
      .filter((choice) => choice.color === color)
      .sort((a, b) => a.key - b.key || a.rank - b.rank)
      .map(({ member }) => member);
    return new ThreadCommunicator(this.channel.subChannel(members));
  }

  abort(): void {
    this.channel.endpoint.abort('COMM_ABORTED', `rank ${this.channel.endpoint.rank} aborted the run`);
  }

  /**
   * Ends a job on the root communicator: completes every request this rank has started and meets the other ranks, so
   * that a rank which left early is reported instead of leaving its peers asleep.
   */
  finishJob(): void {
    const { endpoint } = this.channel;
    const end = new ThreadRequest(this.channel, { operation: 'end of job' }).start();
    endpoint.sleepUntil(() => endpoint.idle);
    end.wait();
  }

  protected attachedBuffer(): SharedArrayBuffer | undefined {
    return this.channel.endpoint.memories.buffer;
  }

  protected beginBroadcast(buffer: Uint8Array, root: number): CommunicationRequest {
    return new BroadcastRequest(this.channel, buffer, root).start();
  }

  protected beginAllGather(send: Uint8Array, receive: Uint8Array, receiveCounts: Int32Array): CommunicationRequest {
    return new AllGatherRequest(this.channel, send, receive, receiveCounts).start();
  }

  protected beginAllToAll(
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
    received: Int32Array | undefined,
  ): CommunicationRequest {
    return new AllToAllRequest(
      this.channel,
      send,
      sendCounts,
      sendDisplacements,
      receive,
      receiveCounts,
      receiveDisplacements,
      received,
    ).start();
  }

  protected beginReduceScatter(send: Float32Array, counts: Int32Array, receive: Float32Array): CommunicationRequest {
    return new ReduceScatterRequest(this.channel, send, counts, receive).start();
  }

  protected beginAllReduce(buffer: Float32Array): CommunicationRequest {
    if (buffer.byteLength <= inlineBytes) return new InlineAllReduceRequest(this.channel, buffer).start();
    return new ShardedAllReduceRequest(this.channel, buffer).start();
  }

  protected takeMaximum(buffer: Int32Array): void {
    let start = 0;
    do {
      const part = buffer.subarray(start, start + maximumElements);
      new MaximumRequest(this.channel, part, buffer.length).start().wait();
      start += maximumElements;
    } while (start < buffer.length);
  }
}
