import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { SmoeError } from '../../errors.ts';
import { truncated, unreadable } from '../bad-record.ts';

const bufferBytes = 1 << 20;

/** Little-endian reading of a file from front to back; never past its end, never more memory than the file has bytes. */
export class ByteCursor {
  readonly path: string;
  readonly size: number;
  readonly #file: number;
  #buffer: Buffer = Buffer.alloc(0);
  /** In the file, of the buffer's first byte, and in the buffer, of the next byte. */
  #bufferStart: number = 0;
  #at: number = 0;

  constructor(path: string) {
    this.path = path;
    try {
      this.#file = openSync(path, 'r');
      this.size = fstatSync(this.#file).size;
    } catch (error) {
      throw unreadable(path, error);
    }
  }

  get offset(): number {
    return this.#bufferStart + this.#at;
  }

  get atEnd(): boolean {
    return this.offset >= this.size;
  }

  /** The next bytes; valid until the next call. @param what names them in the error */
  take(bytes: number, what: string): Buffer {
    if (bytes > this.size - this.offset) {
      throw truncated(
        `${this.path}, byte ${this.offset}`,
        `${what} needs ${bytes} bytes, ${this.size - this.offset} are left`,
      );
    }
    if (bytes > this.#buffer.length - this.#at) this.#fill(bytes);
    const taken = this.#buffer.subarray(this.#at, this.#at + bytes);
    this.#at += bytes;
    return taken;
  }

  uint8(what: string): number {
    return this.take(1, what).readUInt8();
  }

  uint32(what: string): number {
    return this.take(4, what).readUInt32LE();
  }

  int32(what: string): number {
    return this.take(4, what).readInt32LE();
  }

  int32s(count: number, what: string): Int32Array {
    const bytes = this.take(4 * count, what);
    const values = new Int32Array(count);
    for (let i = 0; i < count; i++) values[i] = bytes.readInt32LE(4 * i);
    return values;
  }

  close(): void {
    closeSync(this.#file);
  }

  #fill(bytes: number): void {
    const start = this.offset;
    const buffer = Buffer.allocUnsafe(Math.min(Math.max(bytes, bufferBytes), this.size - start));
    let filled = 0;
    try {
      while (filled < buffer.length) {
        const read = readSync(this.#file, buffer, filled, buffer.length - filled, start + filled);
        if (read === 0) throw truncated(this.path, 'shrank while it was read');
        filled += read;
      }
    } catch (error) {
      throw error instanceof SmoeError ? error : unreadable(this.path, error);
    }
    this.#buffer = buffer;
    this.#bufferStart = start;
    this.#at = 0;
  }
}
