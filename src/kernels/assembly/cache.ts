/**
 * The paged cache of keys and values. A page holds 16 positions of one key-value head: keys
 * [headDim][16], so that a panel of scores is a matrix product, and values [16][headDim].
 * A pool is [pages][kvHeads] of such pages; a sequence's page table, i32, names its pages in order.
 */
export class Page {
  @inline
  static address(pool: usize, pageTable: usize, page: i32, kvHeads: i32, kvHead: i32, headDim: i32): usize {
    const id = load<i32>(pageTable + ((<usize>page) << 2));
    return pool + (((<usize>id * <usize>kvHeads + <usize>kvHead) * <usize>headDim) << 6);
  }
}

/** key, value: [rows][stride], a row [kvHeads][headDim] -> positions firstPosition.. of the sequence. */
export function storeKeyValue(
  key: usize,
  keyStride: i32,
  value: usize,
  valueStride: i32,
  rows: i32,
  firstPosition: i32,
  pageTable: usize,
  keyPool: usize,
  valuePool: usize,
  kvHeads: i32,
  headDim: i32,
): void {
  const headBytes = (<usize>headDim) << 2;
  for (let row = 0; row < rows; row++) {
    const page = (firstPosition + row) >> 4;
    const slot = <usize>((firstPosition + row) & 15);
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      const from = key + <usize>row * ((<usize>keyStride) << 2) + <usize>kvHead * headBytes;
      const to = Page.address(keyPool, pageTable, page, kvHeads, kvHead, headDim) + (slot << 2);
      for (let d = 0; d < headDim; d++) {
        store<f32>(to + ((<usize>d) << 6), load<f32>(from + ((<usize>d) << 2)));
      }
      memory.copy(
        Page.address(valuePool, pageTable, page, kvHeads, kvHead, headDim) + slot * headBytes,
        value + <usize>row * ((<usize>valueStride) << 2) + <usize>kvHead * headBytes,
        headBytes,
      );
    }
  }
}
