/**
 * The `mpi` transport: one process per rank, on one host or many, over Open MPI.
 *
 * Pieces go point to point from one rank's WebAssembly memory into another's, so that what is counted is what is sent, and
 * sums are done here in the one order all transports share; MPI's own reductions promise none. Every collective also
 * sends each peer a header of 32 bytes (40 to 288 for a reduce-scatter, which carries its counts), not counted: it
 * carries small pieces along and tells ranks that disagree apart.
 *
 * At most `slotCount` collectives of one communicator are in flight; starting one more blocks until the oldest ends.
 */
import { BaseCommunicator, sharedBufferOf } from './base-communicator.ts';
import type { CommunicationRequest, Communicator } from './communicator.ts';
import { MpiChannel } from './mpi-channel.ts';
import { MpiAllGatherRequest, MpiAllToAllRequest, MpiBroadcastRequest } from './mpi-copy-requests.ts';
import type { MpiEndpoint } from './mpi-endpoint.ts';
import type { Region } from './mpi-library.ts';
import { MpiRequest } from './mpi-request.ts';
import {
  MpiMaximumRequest,
  MpiReduceScatterRequest,
  MpiShardedAllReduceRequest,
  MpiSplitRequest,
  MpiWholeAllReduceRequest,
} from './mpi-sum-requests.ts';

/** All-reduces up to this many bytes take one exchange of the whole payload instead of two of shards. */
const wholeAllReduceBytes = 512;

/** The root communicator of this rank. */
export function connectMpi(endpoint: MpiEndpoint): MpiCommunicator {
  const members = Array.from({ length: endpoint.size }, (_, rank) => rank);
  return new MpiCommunicator(new MpiChannel(endpoint, members, endpoint.comm));
}

export class MpiCommunicator extends BaseCommunicator {
  readonly transport: string = 'mpi';
  private readonly channel: MpiChannel;

  constructor(channel: MpiChannel) {
    super(channel.rank, channel.size, channel.endpoint.counters);
    this.channel = channel;
  }

  attachMemory(memory: WebAssembly.Memory): void {
    const { endpoint } = this.channel;
    const buffer = sharedBufferOf(memory);
    endpoint.memories.assertNew(buffer);
    this.assertRoot(this.channel.endpoint.size);
    new MpiRequest(this.channel, { operation: 'attach memory' }).start().wait();
    endpoint.attach(buffer);
  }

  useMemory(memory: WebAssembly.Memory): void {
    this.assertRoot(this.channel.endpoint.size);
    this.channel.endpoint.useMemory(sharedBufferOf(memory));
  }

  startBarrier(): CommunicationRequest {
    return new MpiRequest(this.channel, { operation: 'barrier' }).start();
  }

  split(color: number, key: number): Communicator {
    const request = new MpiSplitRequest(this.channel, color, key).start();
    request.wait();
    const choices = this.channel.members.map((member, rank) => ({
      member,
      rank,
      color: request.choices[2 * rank],
      key: request.choices[2 * rank + 1],
    }));
    const members = choices
      .filter((choice) => choice.color === color)
      .sort((a, b) => a.key - b.key || a.rank - b.rank)
      .map(({ member }) => member);
    // MPI wants colours that are not negative: the first rank of each will do.
    return new MpiCommunicator(this.channel.subChannel(members[0], members));
  }

  abort(): void {
    this.channel.endpoint.abort('COMM_ABORTED', `rank ${this.channel.endpoint.rank} aborted the run`);
  }

  /**
   * Ends a job on the root communicator: completes every request this rank has started and meets the other ranks, so
   * that a rank which left early is reported instead of leaving its peers waiting.
   */
  finishJob(): void {
    const { endpoint } = this.channel;
    const end = new MpiRequest(this.channel, { operation: 'end of job' }).start();
    endpoint.waitUntil(() => endpoint.idle);
    end.wait();
  }

  protected attachedBuffer(): SharedArrayBuffer | undefined {
    return this.channel.endpoint.memories.buffer;
  }

  protected beginBroadcast(buffer: Uint8Array, root: number): CommunicationRequest {
    return new MpiBroadcastRequest(this.channel, this.memory, buffer, root).start();
  }

  protected beginAllGather(send: Uint8Array, receive: Uint8Array, receiveCounts: Int32Array): CommunicationRequest {
    return new MpiAllGatherRequest(this.channel, this.memory, send, receive, receiveCounts).start();
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
    return new MpiAllToAllRequest(
      this.channel,
      this.memory,
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
    return new MpiReduceScatterRequest(this.channel, this.memory, send, counts, receive).start();
  }

  protected beginAllReduce(buffer: Float32Array): CommunicationRequest {
    const { channel, memory } = this;
    const request =
      buffer.byteLength <= wholeAllReduceBytes
        ? new MpiWholeAllReduceRequest(channel, memory, buffer)
        : new MpiShardedAllReduceRequest(channel, memory, buffer);
    return request.start();
  }

  protected takeMaximum(buffer: Int32Array): void {
    new MpiMaximumRequest(this.channel, this.memory, buffer).start().wait();
  }

  private get memory(): Region {
    return this.channel.endpoint.memory;
  }
}
