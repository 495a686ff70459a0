import assert from 'node:assert/strict';

import { Kernels, type PackedWeight, type WeightType } from '../../src/kernels/kernels.ts';

/** Values of many magnitudes, with zeros of both signs and subnormals among them; the same for the same seed. */
export class Numbers {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  integer(below: number): number {
    return Math.floor(this.next() * below);
  }

  floats(count: number, scale: number = 1): Float32Array {
    return Float32Array.from({ length: count }, () => {
      const kind = this.integer(32);
      if (kind === 0) return 0;
      if (kind === 1) return -0;
      if (kind === 2) return (this.next() - 0.5) * 1e-39;
      if (kind === 3) return (this.next() - 0.5) * scale * 100;
      return (this.next() - 0.5) * 2 * scale;
    });
  }
}

/** Kernels over a memory of their own, with arrays placed in it one after the other. */
export class Workbench {
  readonly memory: WebAssembly.Memory = new WebAssembly.Memory({ initial: 256, maximum: 256, shared: true });
  readonly kernels: Kernels = new Kernels(this.memory);
  #next = Kernels.reservedBytes;

  /** Forgets everything placed so far; `place` hands out the same bytes again, with what was in them. */
  clear(): void {
    this.#next = Kernels.reservedBytes;
  }

  reserve(bytes: number): number {
    const pointer = this.#next;
    this.#next += bytes;
    assert.ok(this.#next <= this.memory.buffer.byteLength, 'workbench memory is full');
    return pointer;
  }

  place(values: Float32Array | Int32Array | Uint16Array): number {
    // 4-byte aligned only: no kernel may want more.
    const pointer = this.reserve(Math.ceil(values.byteLength / 4) * 4);
    new Uint8Array(this.memory.buffer, pointer, values.byteLength).set(
      new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
    );
    return pointer;
  }

  floats(pointer: number, count: number): Float32Array {
    return new Float32Array(this.memory.buffer, pointer, count);
  }

  integers(pointer: number, count: number): Int32Array {
    return new Int32Array(this.memory.buffer, pointer, count);
  }

  /** Packs w: [outputs][inputs], whose values must be representable in `type`. */
  pack(w: Float32Array, outputs: number, inputs: number, type: WeightType): PackedWeight {
    const weight = { pointer: this.reserve(Kernels.packedBytes(outputs, inputs, type)), outputs, inputs, type };
    this.kernels.packWeight(this.place(type === 'bf16' ? upperHalves(w) : w), inputs, 0, weight);
    return weight;
  }
}

/** values with the low 16 bits cleared: representable in bfloat16. */
export function toBfloat16(values: Float32Array): Float32Array {
  return new Float32Array(
    new Uint32Array(values.buffer, values.byteOffset, values.length).map((bits) => bits & 0xffff0000).buffer,
  );
}

export function upperHalves(values: Float32Array): Uint16Array {
  return Uint16Array.from(new Uint32Array(values.buffer, values.byteOffset, values.length), (bits) => bits >>> 16);
}

/** Equal bit for bit, so that -0 is not +0; NaN equals NaN. */
export function assertSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < actual.length; i++) {
    if (!Object.is(actual[i], expected[i]))
      assert.fail(`${what}: element ${i} is ${actual[i]}, expected ${expected[i]}`);
  }
}
