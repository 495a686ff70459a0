/**
 * Packed weights: [ceil(N / 16)] panels of [K][16], the columns beyond N zero.
 *
 * A float32 panel row is 16 floats. A bfloat16 panel row is 8 words of 32 bits: word i < 4 holds
 * column i in its low half and column i + 4 in its high half, word 4 + i columns 8 + i and 12 + i, so
 * that one shift and one mask turn 16 bytes into 8 floats.
 *
 * T is u16 for bfloat16 and f32 for float32.
 */
export class Panel {
  /** Place of column c < 16 within a panel row, in elements. */
  @inline
  static slot<T>(c: i32): i32 {
    if (sizeof<T>() == 2) return (c & 8) | ((c & 3) << 1) | ((c >> 2) & 1);
    return c;
  }

  /** Columns 0-3 of the 8 whose first 16 bytes are `raw`. */
  @inline
  static low<T>(raw: v128): v128 {
    if (sizeof<T>() == 2) return i32x4.shl(raw, 16);
    return raw;
  }

  /**
   * The mask that leaves columns 4-7 of bfloat16 words. Compilers must not see that it is a constant: V8 would
   * build it anew in every step of the loops that use it, at a third of their speed.
   */
  @inline
  static highMask(count: i32): v128 {
    return i32x4.splat(-65536 + (count >> 31));
  }

  /** Where row n of the unpacked matrix starts; its elements follow every 16 * sizeof<T>() bytes. */
  @inline
  static row<T>(packed: usize, inputs: i32, n: i32): usize {
    const element = (((<usize>n >> 4) * <usize>inputs) << 4) + <usize>Panel.slot<T>(n & 15);
    return packed + element * sizeof<T>();
  }
}

/** source: [outputs][sourceRowStride], of which `inputs` columns from sourceColumn -> packed. */
function pack<T>(
  source: usize,
  sourceRowStride: i32,
  sourceColumn: i32,
  packed: usize,
  outputs: i32,
  inputs: i32,
): void {
  const padded = (outputs + 15) & ~15;
  for (let n = 0; n < padded; n++) {
    let target = Panel.row<T>(packed, inputs, n);
    let from = source + (<usize>n * <usize>sourceRowStride + <usize>sourceColumn) * sizeof<T>();
    for (let k = 0; k < inputs; k++) {
      store<T>(target, n < outputs ? load<T>(from) : <T>0);
      target += 16 * sizeof<T>();
      from += sizeof<T>();
    }
  }
}

/** Row n as float32 -> target: [inputs]. */
function unpackRow<T>(packed: usize, inputs: i32, n: i32, target: usize): void {
  let from = Panel.row<T>(packed, inputs, n);
  for (let k = 0; k < inputs; k++) {
    if (sizeof<T>() == 2) store<u32>(target, load<u16>(from) << 16);
    else store<f32>(target, load<f32>(from));
    target += 4;
    from += 16 * sizeof<T>();
  }
}

/** target[i] = row ids[i] of the unpacked matrix; ids: i32 [rows], target: [rows][inputs]. */
function embedRows<T>(packed: usize, inputs: i32, ids: usize, rows: i32, target: usize): void {
  for (let i = 0; i < rows; i++) {
    unpackRow<T>(packed, inputs, load<i32>(ids + ((<usize>i) << 2)), target);
    target += (<usize>inputs) << 2;
  }
}

export function packBf16(
  source: usize,
  sourceRowStride: i32,
  sourceColumn: i32,
  packed: usize,
  outputs: i32,
  inputs: i32,
): void {
  pack<u16>(source, sourceRowStride, sourceColumn, packed, outputs, inputs);
}

export function packF32(
  source: usize,
  sourceRowStride: i32,
  sourceColumn: i32,
  packed: usize,
  outputs: i32,
  inputs: i32,
): void {
  pack<f32>(source, sourceRowStride, sourceColumn, packed, outputs, inputs);
}

export function embedRowsBf16(packed: usize, inputs: i32, ids: usize, rows: i32, target: usize): void {
  embedRows<u16>(packed, inputs, ids, rows, target);
}

export function embedRowsF32(packed: usize, inputs: i32, ids: usize, rows: i32, target: usize): void {
  embedRows<f32>(packed, inputs, ids, rows, target);
}

export function unpackRowBf16(packed: usize, inputs: i32, n: i32, target: usize): void {
  unpackRow<u16>(packed, inputs, n, target);
}

export function unpackRowF32(packed: usize, inputs: i32, n: i32, target: usize): void {
  unpackRow<f32>(packed, inputs, n, target);
}
