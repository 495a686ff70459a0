/**
 * e^x in f32x4: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial in r of degree 7, and 2^n in two
 * factors so that results below the normal range and infinity come out right. Multiply and add only.
 * exp(-inf) = +0; NaN stays NaN; error below 1 unit in the last place.
 */
import { Lanes } from './lanes';

export class Exponential {
  @inline
  static of(x: v128): v128 {
    // Outside these bounds the result is +0 or infinity anyway.
    x = f32x4.pmax(x, f32x4.splat(-105));
    x = f32x4.pmin(x, f32x4.splat(90));
    // 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const rounder = f32x4.splat(12582912);
    const shifted = f32x4.add(f32x4.mul(x, f32x4.splat(1.4426950408889634)), rounder);
    const n = f32x4.sub(shifted, rounder);
    const exponent = i32x4.sub(shifted, rounder);
    // ln 2 in two parts, the first short enough for n * part to be exact.
    let r = f32x4.sub(x, f32x4.mul(n, f32x4.splat(0.693359375)));
    r = f32x4.add(r, f32x4.mul(n, f32x4.splat(2.1219444e-4)));
    let p = f32x4.splat(1.98756915e-4);
    p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
    p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
    p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
    p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
    p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1));
    p = f32x4.add(f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), r), f32x4.splat(1));
    // 2^(n >> 1) and 2^(n - (n >> 1)), made of their exponent bits.
    const half = i32x4.shr_s(exponent, 1);
    const rest = i32x4.sub(exponent, half);
    const offset = i32x4.splat(127);
    p = f32x4.mul(p, i32x4.shl(i32x4.add(half, offset), 23));
    return f32x4.mul(p, i32x4.shl(i32x4.add(rest, offset), 23));
  }
}

/** y[i] = e^x[i]; y may be x. */
export function exponential(x: usize, y: usize, count: i32): void {
  for (let i = 0; i < count; i += 4) {
    Lanes.store(y, Exponential.of(Lanes.load(x, count - i, 0)), count - i);
    x += 16;
    y += 16;
  }
}
