import { setTimeout as wait } from 'node:timers/promises';
import { SmoeError } from '../../errors.ts';

export interface FetchLimits {
  /** Per attempt, from the request to the last byte of the answer. */
  timeoutMs: number;
  /** Further attempts after the first. */
  retries: number;
  /** Pause before the first further attempt; doubles each time. */
  backoffMs: number;
  /** Largest answer taken. */
  mostBytes: number;
}

export const defaultFetchLimits: FetchLimits = {
  timeoutMs: 300_000,
  retries: 4,
  backoffMs: 500,
  mostBytes: 256 * 1024 * 1024,
};

const longestPauseMs = 30_000;
/** Worth asking again: timeout, too many requests, and what gateways answer while a server is busy or starting. */
const passing = new Set([408, 425, 429, 500, 502, 503, 504]);

export interface JsonAnswer {
  status: number;
  /** Undefined when the body is not JSON. */
  json: unknown;
  text: string;
}

/** A server's JSON interface: every answer bounded in size and time, what may pass asked again. */
export class JsonServer {
  readonly base: string;
  readonly #limits: FetchLimits;
  readonly #headers: Record<string, string>;

  constructor(base: string, limits: FetchLimits, apiKey: string | undefined) {
    if (!URL.canParse(base) || !/^https?:$/.test(new URL(base).protocol)) {
      throw new SmoeError('TRACE_SERVER', `${base}: not an http address`, { hint: 'such as http://127.0.0.1:30000' });
    }
    this.base = base.replace(/\/+(v1\/?)?$/, '');
    this.#limits = limits;
    this.#headers = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
  }

  /** GET without `body`, else POST. Throws TRACE_SERVER when no answer comes; any status is an answer once retries are used up. */
  async ask(
    path: string,
    body: unknown,
    signal: AbortSignal,
    retries: number = this.#limits.retries,
  ): Promise<JsonAnswer> {
    for (let attempt = 0; ; attempt++) {
      let pause = Math.min(this.#limits.backoffMs * 2 ** attempt, longestPauseMs);
      try {
        const { answer, retryAfterMs } = await this.#once(path, body, signal);
        if (!passing.has(answer.status) || attempt >= retries) return answer;
        pause = Math.min(Math.max(pause, retryAfterMs), longestPauseMs);
      } catch (error) {
        if (signal.aborted || error instanceof SmoeError) throw error;
        if (attempt >= retries) throw this.#failure(path, error);
      }
      await wait(pause, undefined, { signal });
    }
  }

  async #once(path: string, body: unknown, signal: AbortSignal): Promise<{ answer: JsonAnswer; retryAfterMs: number }> {
    const response = await fetch(`${this.base}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: body === undefined ? this.#headers : { ...this.#headers, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(this.#limits.timeoutMs)]),
    });
    const text = await this.#boundedText(path, response);
    const seconds = Number(response.headers.get('retry-after') ?? 0);
    return {
      answer: { status: response.status, json: parsed(text), text },
      retryAfterMs: Number.isFinite(seconds) ? seconds * 1000 : 0,
    };
  }

  async #boundedText(path: string, response: Response): Promise<string> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    const tooLarge = (): SmoeError =>
      new SmoeError('TRACE_SERVER', `${this.base}${path}: the answer is larger than ${this.#limits.mostBytes} bytes`, {
        hint: 'send shorter prompts or ask for fewer new tokens',
      });
    if (Number(response.headers.get('content-length') ?? 0) > this.#limits.mostBytes) {
      await response.body?.cancel();
      throw tooLarge();
    }
    if (response.body !== null) {
      // Leaving the loop cancels the body.
      for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
        bytes += chunk.length;
        if (bytes > this.#limits.mostBytes) throw tooLarge();
        chunks.push(chunk);
      }
    }
    return Buffer.concat(chunks).toString('utf8');
  }

  #failure(path: string, error: unknown): SmoeError {
    const { name, message, cause } = error as Error;
    const reason =
      name === 'TimeoutError'
        ? `no answer within ${this.#limits.timeoutMs} ms`
        : cause instanceof Error && cause.message !== ''
          ? cause.message
          : message;
    return new SmoeError('TRACE_SERVER', `${this.base}${path}: ${reason}`, {
      hint: 'is the server running and reachable, and the address right?',
      cause: error,
    });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
