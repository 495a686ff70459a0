/** The communicator of a one-rank run: every collective is a local copy, nothing is ever counted. */
import { SmoeError } from '../errors.ts';
import { BaseCommunicator, emptyCounters, sharedBufferOf } from './base-communicator.ts';
import type { CommunicationRequest, Communicator, TrafficCounters } from './communicator.ts';

const completedRequest: CommunicationRequest = {
  test: () => true,
  wait: () => undefined,
};

export class SingleCommunicator extends BaseCommunicator {
  readonly transport: string = 'single';
  private buffer: SharedArrayBuffer | undefined;

  constructor(counters: TrafficCounters = emptyCounters(), buffer?: SharedArrayBuffer) {
    super(0, 1, counters);
    this.buffer = buffer;
  }

  attachMemory(memory: WebAssembly.Memory): void {
    if (this.buffer !== undefined) throw new SmoeError('COMM_MEMORY', 'a memory is attached already');
    this.buffer = sharedBufferOf(memory);
  }

  startBarrier(): CommunicationRequest {
    return completedRequest;
  }

  split(): Communicator {
    return new SingleCommunicator(this.counters, this.buffer);
  }

  /** Nobody else to tell. */
  abort(): void {}

  protected attachedBuffer(): SharedArrayBuffer | undefined {
    return this.buffer;
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
