/**
 * Frames that wait for their due time. The delay of a queue is constant, so frames leave in the order they came and no timer
 * structure is needed: the oldest frame is always the next. Frame bytes lie in one ring that is read and written in place, so
 * nothing is allocated per frame.
 */
export class DelayQueue {
  /** Frame bytes; a frame never wraps round the end. */
  readonly ring: Uint8Array;
  readonly #largestFrame: number;
  readonly #due: Float64Array;
  readonly #offset: Uint32Array;
  readonly #length: Uint32Array;
  /** Slots of the oldest frame and of the next to come; equal when empty. */
  #head = 0;
  #tail = 0;
  /** Where the next frame's bytes may start. */
  #next = 0;

  constructor(ringBytes: number, slots: number, largestFrame: number) {
    if (ringBytes < 2 * largestFrame) throw new RangeError('a delay queue holds two frames at least');
    this.ring = new Uint8Array(ringBytes);
    this.#largestFrame = largestFrame;
    this.#due = new Float64Array(slots);
    this.#offset = new Uint32Array(slots);
    this.#length = new Uint32Array(slots);
  }

  get empty(): boolean {
    return this.#head === this.#tail;
  }

  /** When the oldest frame is due; Infinity when there is none. */
  get due(): number {
    return this.empty ? Number.POSITIVE_INFINITY : this.#due[this.#head]!;
  }

  get offset(): number {
    return this.#offset[this.#head]!;
  }

  get length(): number {
    return this.#length[this.#head]!;
  }

  /** Where the largest possible frame may be written now, as an offset in `ring`; -1 when there is no room. */
  reserve(): number {
    if ((this.#tail + 1) % this.#due.length === this.#head) return -1;
    if (this.empty) return (this.#next = 0);
    const oldest = this.offset;
    const start = this.#next;
    // Bytes in use are [oldest, start), or all but [start, oldest) once the ring has wrapped.
    if (start <= oldest) return start + this.#largestFrame < oldest ? start : -1;
    if (start + this.#largestFrame <= this.ring.length) return start;
    return this.#largestFrame < oldest ? (this.#next = 0) : -1;
  }

  /** Takes in the frame written at the reserved offset. `due` never decreases from call to call. */
  push(length: number, due: number): void {
    this.#due[this.#tail] = due;
    this.#offset[this.#tail] = this.#next;
    this.#length[this.#tail] = length;
    this.#next += length;
    this.#tail = (this.#tail + 1) % this.#due.length;
  }

  /** Forgets the oldest frame. */
  shift(): void {
    this.#head = (this.#head + 1) % this.#due.length;
  }
}
