import { SmoeError } from '../errors.ts';

const alignment = 64;
const pageBytes = 65536;
const largestMemory = 65536 * pageBytes;

/**
 * Hands out regions of a rank's one WebAssembly memory. Sizes are declared first (`reserve`), then the memory is made with
 * exactly that size, because a shared memory cannot grow without invalidating the peers' views. Untouched pages cost nothing.
 */
export class Arena {
  #next: number;

  /** @param reservedBytes bytes at the start that belong to the kernels' static data */
  constructor(reservedBytes: number) {
    this.#next = reservedBytes;
  }

  /** Byte offset of a new 64-byte aligned region. */
  reserve(bytes: number): number {
    const pointer = Math.ceil(this.#next / alignment) * alignment;
    this.#next = pointer + bytes;
    return pointer;
  }

  /** The memory that holds every region reserved so far, zero-filled. */
  createMemory(): WebAssembly.Memory {
    // One page more, so that kernels may read (never use) a vector past the last region.
    const pages = Math.ceil(this.#next / pageBytes) + 1;
    if (pages * pageBytes > largestMemory) {
      throw new SmoeError(
        'ENGINE_MEMORY',
        `one rank would need ${(this.#next / 2 ** 30).toFixed(1)} GiB, the limit is 4 GiB`,
        {
          hint: 'use more ranks, fewer step tokens or fewer cache positions',
        },
      );
    }
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  }
}
