/**
 * Rows of float32 without what their exponents repeat, bit for bit. Values of a hidden row lie within a few powers of two of each
 * other, so 3 bits name most exponents. width is a multiple of 16.
 *
 * A row: base b (u8) | for every 16 values 48 bytes: sign and mantissa, the value rotated left by one without its top byte; 3 u16: bits
 * 2, 1, 0 of their codes, value i in bit i | u8 for every code 0: the exponent. Code c of 1 to 7 stands for exponent b + c. A row that
 * would not get shorter is the byte 255 and its 4 * width bytes.
 */
const plainRow: i32 = 255;
/** Codes but for 0. */
const window: i32 = 7;
/** Windows that are tried: as high as the largest exponent calls for, and so many lower. */
const windowsTried: i32 = 4;
const blockBytes: usize = 54;

/** Sixteen values at once. */
class Sixteen {
  /** Sign to bit 0, exponent to the top byte. */
  @inline
  static rotated(pointer: usize): v128 {
    const value = v128.load(pointer);
    return v128.or(i32x4.shl(value, 1), i32x4.shr_u(value, 31));
  }

  /** Top bytes of 16 rotated values. */
  @inline
  static topBytes(v0: v128, v1: v128, v2: v128, v3: v128): v128 {
    return i8x16.narrow_i16x8_u(
      i16x8.narrow_i32x4_u(i32x4.shr_u(v0, 24), i32x4.shr_u(v1, 24)),
      i16x8.narrow_i32x4_u(i32x4.shr_u(v2, 24), i32x4.shr_u(v3, 24)),
    );
  }

  @inline
  static exponents(pointer: usize): v128 {
    return Sixteen.topBytes(
      Sixteen.rotated(pointer),
      Sixteen.rotated(pointer + 16),
      Sixteen.rotated(pointer + 32),
      Sixteen.rotated(pointer + 48),
    );
  }

  /** The low 3 bytes of each lane, one after the other. */
  @inline
  static lowBytes(v: v128): v128 {
    return i8x16.swizzle(v, i8x16(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  }

  /** All ones in the lanes whose bit is set in the u16. */
  @inline
  static lanesOf(pointer: usize, bits: v128): v128 {
    const spread = i8x16.swizzle(v128.load16_splat(pointer), i8x16(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    return i8x16.eq(v128.and(spread, bits), bits);
  }

  /** Four values from their low bytes at `pointer` and exponents. Reads 4 bytes beyond. */
  @inline
  static value(pointer: usize, exponent: v128): v128 {
    const low = i8x16.swizzle(v128.load(pointer), i8x16(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
    const v = v128.or(low, i32x4.shl(exponent, 24));
    return v128.or(i32x4.shr_u(v, 1), i32x4.shl(v, 31));
  }
}

/** target = source[index[i]], or source[i] without index (0), one compact row after the other. Returns the bytes. */
export function compactRows(source: usize, index: usize, target: usize, rows: i32, width: i32): i32 {
  const bytes = (<usize>width) << 2;
  const start = target;
  for (let i = 0; i < rows; i++) {
    const row = index == 0 ? i : load<i32>(index + ((<usize>i) << 2));
    target = compactRow(source + <usize>row * bytes, target, width);
  }
  return <i32>(target - start);
}

/** The opposite: target[index[i]], or target[i], = the i-th compact row. Returns the bytes read. */
export function expandRows(source: usize, index: usize, target: usize, rows: i32, width: i32): i32 {
  const bytes = (<usize>width) << 2;
  const start = source;
  for (let i = 0; i < rows; i++) {
    const row = index == 0 ? i : load<i32>(index + ((<usize>i) << 2));
    source = expandRow(source, target + <usize>row * bytes, width);
  }
  return <i32>(source - start);
}

/** The b whose window holds the most exponents; the higher at equal number. */
function bestBase(source: usize, end: usize): i32 {
  let most = i8x16.splat(0);
  for (let at = source; at < end; at += 64) most = i8x16.max_u(most, Sixteen.exponents(at));
  most = i8x16.max_u(most, i64x2.shr_u(most, 32));
  most = i8x16.max_u(most, i64x2.shr_u(most, 16));
  most = i8x16.max_u(most, i64x2.shr_u(most, 8));
  const largest = <i32>max(i8x16.extract_lane_u(most, 0), i8x16.extract_lane_u(most, 8));
  const highest = max(0, largest - window);
  const first = i8x16.splat(<i8>(highest + 1));
  const one = i8x16.splat(1);
  const two = i8x16.splat(2);
  const three = i8x16.splat(3);
  const last = i8x16.splat(<i8>(window - 1));
  let n0 = 0,
    n1 = 0,
    n2 = 0,
    n3 = 0;
  for (let at = source; at < end; at += 64) {
    const offset = i8x16.sub(Sixteen.exponents(at), first);
    n0 += popcnt(i8x16.bitmask(i8x16.le_u(offset, last)));
    n1 += popcnt(i8x16.bitmask(i8x16.le_u(i8x16.add(offset, one), last)));
    n2 += popcnt(i8x16.bitmask(i8x16.le_u(i8x16.add(offset, two), last)));
    n3 += popcnt(i8x16.bitmask(i8x16.le_u(i8x16.add(offset, three), last)));
  }
  let lower = 0;
  let held = n0;
  if (n1 > held) {
    held = n1;
    lower = 1;
  }
  if (n2 > held) {
    held = n2;
    lower = 2;
  }
  if (n3 > held) lower = windowsTried - 1;
  return max(0, highest - lower);
}

/** Returns the end of the compact row. */
function compactRow(source: usize, target: usize, width: i32): usize {
  const bytes = (<usize>width) << 2;
  const end = source + bytes;
  const base = bestBase(source, end);
  const wide = i8x16.splat(<i8>base);
  const first = i8x16.splat(1);
  const last = i8x16.splat(<i8>(window - 1));
  const plainEnd = target + 1 + bytes;
  let block = target + 1;
  let extra = block + (bytes >> 6) * blockBytes;
  for (let at = source; at < end; at += 64, block += blockBytes) {
    const v0 = Sixteen.rotated(at);
    const v1 = Sixteen.rotated(at + 16);
    const v2 = Sixteen.rotated(at + 32);
    const v3 = Sixteen.rotated(at + 48);
    const exponent = Sixteen.topBytes(v0, v1, v2, v3);
    const code = i8x16.sub(exponent, wide);
    const inside = i8x16.le_u(i8x16.sub(code, first), last);
    // Each store writes 4 bytes too many, which the next one replaces.
    v128.store(block, Sixteen.lowBytes(v0));
    v128.store(block + 12, Sixteen.lowBytes(v1));
    v128.store(block + 24, Sixteen.lowBytes(v2));
    v128.store(block + 36, Sixteen.lowBytes(v3));
    const coded = v128.and(code, inside);
    store<u16>(block + 48, <u16>i8x16.bitmask(i8x16.shl(coded, 5)));
    store<u16>(block + 50, <u16>i8x16.bitmask(i8x16.shl(coded, 6)));
    store<u16>(block + 52, <u16>i8x16.bitmask(i8x16.shl(coded, 7)));
    let outside = ~i8x16.bitmask(inside) & 0xffff;
    if (outside == 0) continue;
    if (extra + popcnt(outside) >= plainEnd) {
      store<u8>(target, <u8>plainRow);
      memory.copy(target + 1, source, bytes);
      return plainEnd;
    }
    for (; outside != 0; outside &= outside - 1, extra++) {
      store<u8>(extra, load<u32>(at + ((<usize>ctz(outside)) << 2)) >> 23);
    }
  }
  store<u8>(target, <u8>base);
  return extra;
}

/** Returns the end of the compact row. */
function expandRow(source: usize, target: usize, width: i32): usize {
  const base = <i32>load<u8>(source);
  const bytes = (<usize>width) << 2;
  if (base == plainRow) {
    memory.copy(target, source + 1, bytes);
    return source + 1 + bytes;
  }
  const wide = i8x16.splat(<i8>base);
  const bits = i8x16(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
  const four = i8x16.splat(4);
  const two = i8x16.splat(2);
  const one = i8x16.splat(1);
  let block = source + 1;
  let extra = block + (bytes >> 6) * blockBytes;
  const end = target + bytes;
  for (let at = target; at < end; at += 64, block += blockBytes) {
    const code = v128.or(
      v128.or(v128.and(Sixteen.lanesOf(block + 48, bits), four), v128.and(Sixteen.lanesOf(block + 50, bits), two)),
      v128.and(Sixteen.lanesOf(block + 52, bits), one),
    );
    const exponent = i8x16.add(code, wide);
    const low = i16x8.extend_low_i8x16_u(exponent);
    const high = i16x8.extend_high_i8x16_u(exponent);
    v128.store(at, Sixteen.value(block, i32x4.extend_low_i16x8_u(low)));
    v128.store(at + 16, Sixteen.value(block + 12, i32x4.extend_high_i16x8_u(low)));
    v128.store(at + 32, Sixteen.value(block + 24, i32x4.extend_low_i16x8_u(high)));
    v128.store(at + 48, Sixteen.value(block + 36, i32x4.extend_high_i16x8_u(high)));
    let outside = i8x16.bitmask(i8x16.eq(code, i8x16.splat(0)));
    for (; outside != 0; outside &= outside - 1, extra++) {
      const to = at + ((<usize>ctz(outside)) << 2);
      store<u32>(to, (load<u32>(to) & 0x807fffff) | ((<u32>load<u8>(extra)) << 23));
    }
  }
  return extra;
}
