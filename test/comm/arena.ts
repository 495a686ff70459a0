/** Buffers for tests, cut one after another from a rank's shared memory. */
const pageBytes = 65536;

export class Arena {
  readonly memory: WebAssembly.Memory;
  private used = 0;

  constructor(bytes: number) {
    const pages = Math.ceil(bytes / pageBytes);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  }

  /** Makes all space free again. */
  reset(): void {
    this.used = 0;
  }

  bytes(length: number): Uint8Array {
    const start = this.used;
    this.used = Math.ceil((start + length) / 8) * 8;
    return new Uint8Array(this.memory.buffer, start, length);
  }

  floats(length: number): Float32Array {
    return new Float32Array(this.memory.buffer, this.bytes(4 * length).byteOffset, length);
  }

  integers(length: number): Int32Array {
    return new Int32Array(this.memory.buffer, this.bytes(4 * length).byteOffset, length);
  }
}
