/**
 * The UTF-8 bytes each token id stands for. Decoding is then joining bytes, which is exact, and can be done token by
 * token. Two kinds of tokenizer.json decoder are understood: byte-level BPE (Qwen, OLMoE) and SentencePiece-like with
 * byte fallback (Mixtral). One difference from the tokenizers library, in output no text encodes to: where a run of
 * fallback bytes is not UTF-8 as a whole, it makes every byte of the run U+FFFD, this only the wrong ones.
 */
import * as valibot from 'valibot';
import { SmoeError } from '../errors.ts';

export interface TokenBytes {
  /** One more than the largest id. */
  readonly size: number;
  /** Bytes of a token; empty for an id the tokenizer does not have, such as the padding rows of an embedding. */
  bytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
  /** The decoder drops one space at the start of a text, which encoding put there. */
  readonly stripsLeadingSpace: boolean;
}

const tokenId = valibot.pipe(valibot.number(), valibot.integer(), valibot.minValue(0), valibot.maxValue(2 ** 24));

/** By hand, since valibot's record drops the keys "constructor" and "prototype", which are tokens like any other. */
function isVocabulary(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.values(value).every((id) => valibot.is(tokenId, id));
}

const schema = valibot.object({
  model: valibot.object({ type: valibot.literal('BPE'), vocab: valibot.custom<Record<string, number>>(isVocabulary) }),
  added_tokens: valibot.optional(
    valibot.array(
      valibot.object({ id: tokenId, content: valibot.string(), special: valibot.optional(valibot.boolean(), false) }),
    ),
    [],
  ),
  decoder: valibot.looseObject({ type: valibot.string() }),
});

/** Decoder steps of the SentencePiece kind, as in Mixtral's tokenizer.json; `Strip` removes one leading space. */
const sentencePieceSteps = [
  { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
  { type: 'ByteFallback' },
  { type: 'Fuse' },
  { type: 'Strip', content: ' ', start: 1, stop: 0 },
];

/** Builds the table from a parsed tokenizer.json; `path` is for messages. */
export function tokenBytesOf(path: string, json: unknown): TokenBytes {
  const parsed = valibot.safeParse(schema, json);
  if (!parsed.success) {
    throw new SmoeError('TOKENIZER_UNSUPPORTED', `${path}: ${valibot.summarize(parsed.issues)}`, {
      hint: 'A BPE tokenizer.json of the tokenizers library is needed.',
    });
  }
  const { model, added_tokens: addedTokens, decoder } = parsed.output;
  const encodePiece = pieceEncoder(path, decoder);
  const pieces = new Map<number, string>();
  for (const [piece, id] of Object.entries(model.vocab)) pieces.set(id, piece);
  for (const { id, content } of addedTokens) pieces.set(id, content);
  const specials = new Set(addedTokens.filter(({ special }) => special).map(({ id }) => id));
  const cache = new Map<number, Uint8Array>();
  let size = 0;
  for (const id of pieces.keys()) size = Math.max(size, id + 1);
  return {
    size,
    bytes: (id) => {
      let bytes = cache.get(id);
      if (bytes === undefined) {
        bytes = encodePiece(pieces.get(id) ?? '');
        cache.set(id, bytes);
      }
      return bytes;
    },
    isSpecial: (id) => specials.has(id),
    stripsLeadingSpace: decoder.type === 'Sequence',
  };
}

/** How a vocabulary entry turns into bytes under a decoder; refuses decoders it does not know. */
function pieceEncoder(path: string, decoder: { type: string }): (piece: string) => Uint8Array {
  if (decoder.type === 'ByteLevel') return byteLevelBytes;
  const steps = (decoder as { decoders?: unknown }).decoders;
  if (decoder.type === 'Sequence' && JSON.stringify(steps) === JSON.stringify(sentencePieceSteps))
    return sentencePieceBytes;
  throw new SmoeError(
    'TOKENIZER_UNSUPPORTED',
    `${path}: decoder ${JSON.stringify(decoder).slice(0, 200)} is not supported`,
    {
      hint: 'Byte-level BPE and SentencePiece-like BPE with byte fallback are supported.',
    },
  );
}

const utf8 = new TextEncoder();

/** GPT-2's alphabet: printable Latin-1 characters stand for themselves, other bytes for U+0100 onwards in order. */
const byteOfCharacter: ReadonlyMap<string, number> = new Map(
  (() => {
    const printable = (byte: number): boolean =>
      (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
    let next = 256;
    return Array.from({ length: 256 }, (_, byte): [string, number] => [
      String.fromCodePoint(printable(byte) ? byte : next++),
      byte,
    ]);
  })(),
);

/** Entries with any character outside the alphabet are added tokens, which stand for themselves. */
function byteLevelBytes(piece: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of piece) {
    const byte = byteOfCharacter.get(character);
    if (byte === undefined) return utf8.encode(piece);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

function sentencePieceBytes(piece: string): Uint8Array {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(piece)?.[1];
  return byte === undefined ? utf8.encode(piece.replaceAll('▁', ' ')) : Uint8Array.of(Number.parseInt(byte, 16));
}
