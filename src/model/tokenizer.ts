/**
 * Text to token ids and back. Encoding is npm @huggingface/tokenizers; decoding is our own (token-bytes.ts), since
 * the library's cannot stream, and by default removes spaces before punctuation.
 */
import { join } from 'node:path';
import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers';
import { SmoeError } from '../errors.ts';
import { readJsonFile } from './json-file.ts';
import { type TokenBytes, tokenBytesOf } from './token-bytes.ts';

export interface EncodeOptions {
  /** Add what the tokenizer puts around a text, such as Mixtral's <s>; default true. */
  addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave out special tokens such as <|endoftext|>; default true. */
  skipSpecialTokens?: boolean;
}

export interface StreamOptions extends DecodeOptions {
  /** The tokens continue a text rather than start one, so a leading space belongs to them; default false. */
  continuesText?: boolean;
}

export interface Tokenizer {
  /** One more than the largest token id; a model's vocabulary may be padded beyond it. */
  readonly size: number;
  /** Lone surrogates count as U+FFFD. */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** Bytes that are not UTF-8 become U+FFFD; ids the tokenizer does not have become nothing. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  streamingDecoder(options?: StreamOptions): StreamingDecoder;
  /** Id of a vocabulary entry or special token, as written in tokenizer.json. */
  tokenId(token: string): number | undefined;
}

/** Reads tokenizer.json and, where there is one, tokenizer_config.json. */
export function loadTokenizer(directory: string): Tokenizer {
  const path = join(directory, 'tokenizer.json');
  const json = readJsonFile(path);
  if (json === undefined) {
    throw new SmoeError('TOKENIZER_NOT_FOUND', `${path}: no such file`, {
      hint: 'Save the tokenizer in the fast format: tokenizer.save_pretrained of transformers writes tokenizer.json.',
    });
  }
  return createTokenizer(path, json, readJsonFile(join(directory, 'tokenizer_config.json')) ?? {});
}

/** From parsed tokenizer.json and tokenizer_config.json; `path` is for messages. */
export function createTokenizer(path: string, json: unknown, config: unknown): Tokenizer {
  const tokenBytes = tokenBytesOf(path, json);
  let hub: HubTokenizer;
  try {
    hub = new HubTokenizer(withPortableSplit(json as TokenizerJson), config as object);
  } catch (error) {
    throw new SmoeError('TOKENIZER_UNSUPPORTED', `${path}: ${(error as Error).message}`, {
      hint: 'The tokenizer uses a step that @huggingface/tokenizers does not have, or the file is damaged.',
      cause: error,
    });
  }
  return {
    size: tokenBytes.size,
    encode: (text, options = {}) => {
      const wellFormed = text.replace(/\p{Surrogate}/gu, '\ufffd');
      const { ids } = hub.encode(wellFormed, { add_special_tokens: options.addSpecialTokens ?? true });
      // A character the vocabulary lacks, in a tokenizer without an unknown token, has no id.
      return Int32Array.from(ids.filter((id: number | undefined) => id !== undefined));
    },
    decode: (ids, options = {}) => {
      const decoder = new StreamingDecoder(tokenBytes, options);
      let text = '';
      for (const id of ids) text += decoder.push(id);
      return text + decoder.flush();
    },
    streamingDecoder: (options = {}) => new StreamingDecoder(tokenBytes, options),
    tokenId: (token) => hub.token_to_id(token),
  };
}

/** Token ids in, text out as soon as it is certain: an incomplete UTF-8 sequence is held back until it completes. */
export class StreamingDecoder {
  readonly #tokenBytes: TokenBytes;
  readonly #skipSpecialTokens: boolean;
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  #stripSpace: boolean;

  constructor(tokenBytes: TokenBytes, options: StreamOptions = {}) {
    this.#tokenBytes = tokenBytes;
    this.#skipSpecialTokens = options.skipSpecialTokens ?? true;
    this.#stripSpace = tokenBytes.stripsLeadingSpace && !(options.continuesText ?? false);
  }

  /** Text completed by this token, often empty. */
  push(id: number): string {
    if (this.#skipSpecialTokens && this.#tokenBytes.isSpecial(id)) return '';
    return this.#strip(this.#utf8.decode(this.#tokenBytes.bytes(id), { stream: true }));
  }

  /** What is still held back, with U+FFFD for an unfinished sequence; the decoder then starts over. */
  flush(): string {
    return this.#strip(this.#utf8.decode());
  }

  #strip(text: string): string {
    if (!this.#stripSpace || text === '') return text;
    this.#stripSpace = false;
    return text.startsWith(' ') ? text.slice(1) : text;
  }
}

interface TokenizerJson {
  pre_tokenizer?: { type?: string; use_regex?: boolean; add_prefix_space?: boolean } | null;
}

/** The split pattern built into the tokenizers library's ByteLevel step. */
const byteLevelPattern = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/**
 * The npm library runs ByteLevel's built-in pattern as a JavaScript expression, whose \s has U+FEFF and lacks U+0085,
 * but translates explicit patterns correctly: so the built-in pattern is made explicit.
 */
function withPortableSplit<Json extends TokenizerJson>(json: Json): Json {
  const step = json.pre_tokenizer;
  if (step?.type !== 'ByteLevel' || step.use_regex === false || step.add_prefix_space !== false) return json;
  const split = { type: 'Split', pattern: { Regex: byteLevelPattern }, behavior: 'Isolated', invert: false };
  const pretokenizers = [split, { ...step, use_regex: false }];
  return { ...json, pre_tokenizer: { type: 'Sequence', pretokenizers } };
}
