/**
 * Text on its way to the reader, without the stop string that ends it: what could yet turn out to be the beginning of one is
 * held back.
 */
export class StopText {
  readonly #stops: readonly string[];
  #held: string = '';
  #stopped: boolean = false;

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Text that is certain now. After a stop string there is none. */
  push(text: string): string {
    if (this.#stopped) return '';
    this.#held += text;
    const match = firstStop(this.#held, this.#stops);
    if (match !== undefined) {
      this.#stopped = true;
      return this.#release(match);
    }
    return this.#release(this.#held.length - this.#possibleStart());
  }

  /** What was held back, once no more text comes. */
  flush(): string {
    return this.#stopped ? '' : this.#release(this.#held.length);
  }

  #release(length: number): string {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text;
  }

  /** Length of the longest end of the held text that begins some stop string. */
  #possibleStart(): number {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.#held.length); length > 0; length--) {
      const end = this.#held.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}

/**
 * Where the stop string begins that is complete first, of those the longest; so the answer does not depend on how the text
 * arrives.
 */
export function firstStop(text: string, stops: readonly string[]): number | undefined {
  let begin: number | undefined;
  let end = Number.POSITIVE_INFINITY;
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at < 0 || at + stop.length > end || (at + stop.length === end && at >= begin!)) continue;
    begin = at;
    end = at + stop.length;
  }
  return begin;
}
