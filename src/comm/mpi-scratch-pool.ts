/** Memory where the pieces of a sum arrive, lent to requests; the most recently returned region is lent first. */
import type { MpiLibrary, Region } from './mpi-library.ts';

const smallestBytes = 4096;

export class MpiScratchPool {
  private readonly library: MpiLibrary;
  private readonly free: Region[] = [];

  constructor(library: MpiLibrary) {
    this.library = library;
  }

  take(bytes: number): Region {
    for (let i = this.free.length - 1; i >= 0; i--) {
      if (this.free[i].bytes.length >= bytes) return this.free.splice(i, 1)[0];
    }
    // A region too small for this request would not suit the next one like it either.
    this.free.pop();
    return this.library.allocate(2 ** Math.ceil(Math.log2(Math.max(bytes, smallestBytes))));
  }

  giveBack(region: Region): void {
    this.free.push(region);
  }
}
