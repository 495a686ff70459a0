/** The communicator of a one-rank run: every collective is a local copy, nothing is ever counted. */
import { AttachedMemories } from './attached-memories.ts';
import { BaseCommunicator, emptyCounters, sharedBufferOf } from './base-communicator.ts';
import type { CommunicationRequest, Communicator, TrafficCounters } from './communicator.ts';

const completedRequest: CommunicationRequest = {
  test: () => true,
  wait: () => undefined,
};

export class SingleCommunicator extends BaseCommunicator {
  readonly transport: string = 'single';
  private readonly memories: AttachedMemories<undefined>;

  constructor(
    counters: TrafficCounters = emptyCounters(),
    memories: AttachedMemories<undefined> = new AttachedMemories(),
  ) {
    super(0, 1, counters);
    this.memories = memories;
  }

  attachMemory(memory: WebAssembly.Memory): void {
    const buffer = sharedBufferOf(memory);
    this.memories.assertNew(buffer);
    this.memories.add(buffer, undefined);
  }

  useMemory(memory: WebAssembly.Memory): void {
    this.memories.use(sharedBufferOf(memory), true);
  }

  startBarrier(): CommunicationRequest {
    return completedRequest;
  }

  split(): Communicator {
    return new SingleCommunicator(this.counters, this.memories);
  }

  /** Nobody else to tell. */
  abort(): void {}

  protected attachedBuffer(): SharedArrayBuffer | undefined {
    return this.memories.buffer;
  }

  protected beginBroadcast(): CommunicationRequest {
    return completedRequest;
  }

  protected beginAllGather(send: Uint8Array, receive: Uint8Array): CommunicationRequest {
    receive.set(send);
    return completedRequest;
  }

  protected beginAllToAll(
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    _receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
  ): CommunicationRequest {
    const start = sendDisplacements[0];
    receive.set(send.subarray(start, start + sendCounts[0]), receiveDisplacements[0]);
    return completedRequest;
  }

  protected beginReduceScatter(send: Float32Array, _counts: Int32Array, receive: Float32Array): CommunicationRequest {
    receive.set(send);
    return completedRequest;
  }

  protected beginAllReduce(): CommunicationRequest {
    return completedRequest;
  }

  protected takeMaximum(): void {}
}
