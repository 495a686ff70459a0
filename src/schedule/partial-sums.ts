import type { Kernels } from '../kernels/kernels.ts';

/**
 * Adds `leaves` blocks of `count` floats, `strideBytes` apart, into the first, as a balanced binary tree whose leaves are
 * paired from the left: ((0 + 1) + (2 + 3)) + ... . Blocks that start as +0 act as absent ones: a sum that starts at +0
 * is never -0, so adding +0 to it changes no bit (docs/bit-identity.md).
 */
export function sumTree(kernels: Kernels, first: number, leaves: number, strideBytes: number, count: number): void {
  for (let step = 1; step < leaves; step *= 2) {
    for (let leaf = 0; leaf + step < leaves; leaf += 2 * step) {
      kernels.addRows(first + leaf * strideBytes, first + (leaf + step) * strideBytes, count);
    }
  }
}
