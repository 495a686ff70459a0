/** Collectives of the `mpi` transport that move bytes; see mpi-request.ts for how. */
import type { MpiChannel } from './mpi-channel.ts';
import type { Region } from './mpi-library.ts';
import { MpiRequest } from './mpi-request.ts';

export class MpiBroadcastRequest extends MpiRequest {
  constructor(channel: MpiChannel, memory: Region, buffer: Uint8Array, root: number) {
    super(channel, { operation: 'broadcast', parameter: root, length: buffer.byteLength });
    if (channel.rank === root) {
      for (let peer = 0; peer < channel.size; peer++) this.give(peer, memory, buffer.byteOffset, buffer.byteLength);
    } else {
      this.expect(root, memory, buffer.byteOffset, buffer.byteLength);
    }
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    this.checkLength(peer);
  }
}

export class MpiAllGatherRequest extends MpiRequest {
  constructor(channel: MpiChannel, memory: Region, send: Uint8Array, receive: Uint8Array, receiveCounts: Int32Array) {
    super(channel, { operation: 'all-gather', length: send.byteLength });
    let at = receive.byteOffset;
    for (let peer = 0; peer < channel.size; peer++) {
      this.give(peer, memory, send.byteOffset, send.byteLength);
      this.expect(peer, memory, at, receiveCounts[peer]);
      if (peer === channel.rank && send.byteOffset !== at) receive.set(send, at - receive.byteOffset);
      at += receiveCounts[peer];
    }
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    this.checkPiece(peer);
  }
}

export class MpiAllToAllRequest extends MpiRequest {
  constructor(
    channel: MpiChannel,
    memory: Region,
    send: Uint8Array,
    sendCounts: Int32Array,
    sendDisplacements: Int32Array,
    receive: Uint8Array,
    receiveCounts: Int32Array,
    receiveDisplacements: Int32Array,
    received: Int32Array | undefined,
  ) {
    super(channel, { operation: 'all-to-all', parameter: received === undefined ? 0 : 1, received });
    for (let peer = 0; peer < channel.size; peer++) {
      this.give(peer, memory, send.byteOffset + sendDisplacements[peer], sendCounts[peer]);
      this.expect(peer, memory, receive.byteOffset + receiveDisplacements[peer], receiveCounts[peer]);
    }
    const own = sendDisplacements[channel.rank];
    const segment = send.subarray(own, own + sendCounts[channel.rank]);
    receive.set(segment, receiveDisplacements[channel.rank]);
  }

  protected override checkPeer(peer: number): void {
    super.checkPeer(peer);
    this.checkPiece(peer);
  }
}
