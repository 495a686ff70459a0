import { addressOf, connect, lastError, read, setOption, socket, write } from './libc.ts';

/** asm-generic/socket.h and linux/in.h. */
const [inet, raw, icmp] = [2, 3, 1];
const [socketLevel, receiveTimeout] = [1, 20];
const [echoReply, echoRequest] = [0, 8];
const answerSeconds = 5;

/**
 * ICMP echo with blocking calls, as `ping` does it: the other host's kernel answers, so the time is the path's and one wake-up's,
 * not that of two event loops.
 */
export class EchoSocket {
  readonly #descriptor: number;
  readonly #request: DataView<ArrayBuffer> = new DataView(new ArrayBuffer(64));
  readonly #answer: DataView<ArrayBuffer> = new DataView(new ArrayBuffer(256));

  constructor(address: string) {
    this.#descriptor = socket(inet, raw, icmp);
    // struct sockaddr_in: the family in the machine's order, no port, the address.
    const peer = new Uint8Array(16);
    new Uint16Array(peer.buffer, 0, 1)[0] = inet;
    peer.set(address.split('.').map(Number), 4);
    const timeout = new BigInt64Array([BigInt(answerSeconds), 0n]);
    const timeoutBytes = new Uint8Array(timeout.buffer);
    setOption(this.#descriptor, socketLevel, receiveTimeout, timeoutBytes, timeoutBytes.length);
    if (this.#descriptor < 0 || connect(this.#descriptor, peer, peer.length) < 0) {
      throw new Error(`no ICMP to ${address} (errno ${lastError()})`);
    }
  }

  /** Undefined when no answer comes. */
  roundTripUs(sequence: number): number | undefined {
    const [request, answer] = [this.#request, this.#answer];
    const identifier = process.pid & 0xffff;
    request.setUint8(0, echoRequest);
    request.setUint16(2, 0);
    request.setUint16(4, identifier);
    request.setUint16(6, sequence);
    request.setUint16(2, checksum(request));
    const started = performance.now();
    if (write(this.#descriptor, addressOf(request), request.byteLength) < 0) return undefined;
    for (;;) {
      const length = read(this.#descriptor, addressOf(answer), answer.byteLength);
      if (length <= 0) return undefined;
      const elapsed = performance.now() - started;
      const header = (answer.getUint8(0) & 15) * 4;
      const ours = answer.getUint16(header + 4) === identifier && answer.getUint16(header + 6) === sequence;
      if (answer.getUint8(header) === echoReply && ours) return elapsed * 1000;
    }
  }
}

/** The Internet checksum: the complement of the sum in ones' complement (RFC 1071). */
function checksum(bytes: DataView): number {
  let sum = 0;
  for (let at = 0; at < bytes.byteLength; at += 2) sum += bytes.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
