/**
 * Four f32 lanes at a time, with partial vectors at the end of a row, and the one order in which
 * this project adds up a row.
 *
 * Sixteen-lane order: lane c takes the elements i with i % 16 == c, i ascending, from +0; then with
 * v0..v3 the vectors of lanes 0-3, 4-7, 8-11, 12-15: t = (v0 + v1) + (v2 + v3), and the sum is
 * (t[0] + t[1]) + (t[2] + t[3]). It depends on the row's own length only.
 */
export class Lanes {
  /** The next 4 elements, or the `remaining` < 4 that are left, followed by `fill`. */
  @inline
  static load(pointer: usize, remaining: i32, fill: f32): v128 {
    return remaining >= 4 ? v128.load(pointer) : Lanes.loadPart(pointer, remaining, fill);
  }

  static loadPart(pointer: usize, remaining: i32, fill: f32): v128 {
    let value = f32x4.splat(fill);
    if (remaining > 0) value = f32x4.replace_lane(value, 0, load<f32>(pointer));
    if (remaining > 1) value = f32x4.replace_lane(value, 1, load<f32>(pointer, 4));
    if (remaining > 2) value = f32x4.replace_lane(value, 2, load<f32>(pointer, 8));
    return value;
  }

  /** Writes the first min(4, remaining) lanes. */
  @inline
  static store(pointer: usize, value: v128, remaining: i32): void {
    if (remaining >= 4) v128.store(pointer, value);
    else Lanes.storePart(pointer, value, remaining);
  }

  static storePart(pointer: usize, value: v128, remaining: i32): void {
    if (remaining > 0) store<f32>(pointer, f32x4.extract_lane(value, 0));
    if (remaining > 1) store<f32>(pointer, f32x4.extract_lane(value, 1), 4);
    if (remaining > 2) store<f32>(pointer, f32x4.extract_lane(value, 2), 8);
  }

  /** The last step of the sixteen-lane order. */
  @inline
  static fold(v0: v128, v1: v128, v2: v128, v3: v128): f32 {
    const t = f32x4.add(f32x4.add(v0, v1), f32x4.add(v2, v3));
    return f32x4.extract_lane(t, 0) + f32x4.extract_lane(t, 1) + (f32x4.extract_lane(t, 2) + f32x4.extract_lane(t, 3));
  }

  /** sum + a * b, rounded twice: never fused. */
  @inline
  static multiplyAdd(sum: v128, a: v128, b: v128): v128 {
    return f32x4.add(sum, f32x4.mul(a, b));
  }

  /** The largest element, NaN passed over; minus infinity when there is none. */
  static maximum(x: usize, count: i32): f32 {
    const lowest = f32.NEGATIVE_INFINITY;
    let m0 = f32x4.splat(lowest);
    let m1 = m0;
    for (let i = 0; i < count; i += 8, x += 32) {
      m0 = f32x4.pmax(m0, Lanes.load(x, count - i, lowest));
      m1 = f32x4.pmax(m1, Lanes.load(x + 16, count - i - 4, lowest));
    }
    m0 = f32x4.pmax(m0, m1);
    return max(
      max(f32x4.extract_lane(m0, 0), f32x4.extract_lane(m0, 1)),
      max(f32x4.extract_lane(m0, 2), f32x4.extract_lane(m0, 3)),
    );
  }
}
