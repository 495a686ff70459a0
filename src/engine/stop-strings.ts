import type { StreamingDecoder, Tokenizer } from '../model/tokenizer.ts';

/** Watches one sequence's text for stop strings. */
export class StopWatcher {
  readonly #decoder: StreamingDecoder;
  readonly #stops: string[];
  readonly #longest: number;
  #tail: string;

  constructor(tokenizer: Tokenizer, stops: string[]) {
    this.#decoder = tokenizer.streamingDecoder({ continuesText: true });
    this.#stops = stops;
    this.#longest = Math.max(...stops.map((stop) => stop.length));
    this.#tail = '';
  }

  /** True once the text so far contains a stop string. */
  push(token: number): boolean {
    this.#tail += this.#decoder.push(token);
    const found = this.#stops.some((stop) => this.#tail.includes(stop));
    this.#tail = this.#tail.slice(-(this.#longest - 1) || this.#tail.length);
    return found;
  }
}
