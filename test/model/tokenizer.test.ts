import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createTokenizer, loadTokenizer } from '../../src/model/tokenizer.ts';
import { readJson, smoeError, temporaryDirectory, tinyDirectory, tinyFamilies } from './fixtures.ts';

interface GoldenText {
  text: string;
  ids: number[];
  decoded: string;
  decodedWithSpecial: string;
}

const tokenizers = new Map(tinyFamilies.map((family) => [family, loadTokenizer(tinyDirectory(family))]));
const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: 'grapheme' }),
  fc
    .array(
      fc.constantFrom(
        ' ',
        '\n',
        '\t',
        'the',
        "'s",
        'ü',
        '\u0301',
        '😀',
        '\ufeff',
        '\u0085',
        '</s>',
        '12',
        '漢',
        '▁',
        'x = y;',
      ),
    )
    .map((parts) => parts.join('')),
);

for (const [family, tokenizer] of tokenizers) {
  test(`${family}: ids and text equal those of the tokenizers library`, () => {
    for (const golden of readJson<GoldenText[]>(join(tinyDirectory(family), 'golden-tokenizer.json'))) {
      const label = JSON.stringify(golden.text);
      assert.deepEqual([...tokenizer.encode(golden.text)], golden.ids, label);
      assert.equal(tokenizer.decode(golden.ids), golden.decoded, label);
      assert.equal(tokenizer.decode(golden.ids, { skipSpecialTokens: false }), golden.decodedWithSpecial, label);
    }
  });

  test(`${family}: any text survives encoding and decoding, up to the tokenizer's own normalisation`, () => {
    const normalize = (value: string): string => {
      if (family === 'qwen3_moe') return value.normalize('NFC');
      return family === 'mixtral' ? value.replaceAll('▁', ' ') : value;
    };
    // Mixtral puts <s> in front; a literal special token in the text is one too, so they are kept on both sides.
    fc.assert(
      fc.property(text, (value) => {
        const ids = tokenizer.encode(value, { addSpecialTokens: false });
        assert.ok(ids.every((id) => id >= 0 && id < tokenizer.size));
        const parts = value.split('</s>');
        if (family === 'mixtral' && parts.length > 1) return;
        assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), parts.map(normalize).join('</s>'));
      }),
      { numRuns: 300 },
    );
  });

  test(`${family}: streaming gives the same text as decoding at once, and never half a character`, () => {
    const ids = fc.oneof(
      fc.array(fc.nat(tokenizer.size + 2)),
      text.map((value) => [...tokenizer.encode(value)]),
    );
    fc.assert(
      fc.property(ids, fc.boolean(), (tokens, skipSpecialTokens) => {
        const decoder = tokenizer.streamingDecoder({ skipSpecialTokens });
        const pieces = tokens.map((id) => decoder.push(id));
        assert.ok(pieces.every((piece) => !/\p{Surrogate}/u.test(piece)));
        assert.equal(pieces.join('') + decoder.flush(), tokenizer.decode(tokens, { skipSpecialTokens }));
        assert.equal(decoder.flush(), '');
      }),
      { numRuns: 300 },
    );
  });

  test(`${family}: an emoji comes out whole, with its last byte`, () => {
    const decoder = tokenizer.streamingDecoder();
    const ids = [...tokenizer.encode('😀', { addSpecialTokens: false })];
    const pieces = ids.map((id) => decoder.push(id));
    assert.equal(pieces.pop(), '😀');
    assert.ok(pieces.every((piece) => piece === ''));
    decoder.push(ids.find((id) => tokenizer.decode([id]) === '\ufffd')!);
    assert.equal(decoder.flush(), '\ufffd');
  });

  test(`${family}: lone surrogates become U+FFFD`, () => {
    assert.deepEqual(tokenizer.encode('a\ud800b\udc00\ud83d'), tokenizer.encode('a\ufffdb\ufffd\ufffd'));
  });

  test(`${family}: nothing in, nothing out`, () => {
    assert.equal(tokenizer.decode([]), '');
    assert.equal(tokenizer.encode('', { addSpecialTokens: false }).length, 0);
    assert.equal(tokenizer.decode([1_000_000, -1]), '');
  });
}

test('special tokens by name and around a text', () => {
  const tokenizer = tokenizers.get('mixtral')!;
  assert.equal(tokenizer.tokenId('</s>'), 2);
  assert.equal(tokenizer.tokenId('no such token'), undefined);
  assert.equal(tokenizer.encode('the')[0], 1);
  assert.notEqual(tokenizer.encode('the', { addSpecialTokens: false })[0], 1);
});

test('tokens named like properties of every object are ordinary tokens', () => {
  const path = join(tinyDirectory('olmoe'), 'tokenizer.json');
  const json = readJson<{ model: { vocab: Record<string, number> } }>(path);
  const names = ['constructor', 'prototype', '__proto__', 'toString'];
  const added = Object.fromEntries(names.map((name, index) => [name, 320 + index]));
  const tokenizer = createTokenizer(
    path,
    { ...json, model: { ...json.model, vocab: { ...json.model.vocab, ...added } } },
    {},
  );
  for (const [index, name] of names.entries()) assert.equal(tokenizer.decode([320 + index]), name);
});

test('a continued text keeps its leading space', () => {
  const tokenizer = tokenizers.get('mixtral')!;
  const ids = tokenizer.encode('the', { addSpecialTokens: false });
  const stream = (continuesText: boolean): string => {
    const decoder = tokenizer.streamingDecoder({ continuesText });
    return [...ids].map((id) => decoder.push(id)).join('') + decoder.flush();
  };
  assert.equal(stream(true), ' the');
  assert.equal(stream(false), 'the');
});

test('tokenizers that are missing, damaged or of another kind', (context) => {
  const directory = temporaryDirectory(context);
  const path = join(directory, 'tokenizer.json');
  assert.throws(() => loadTokenizer(directory), smoeError('TOKENIZER_NOT_FOUND', path));
  writeFileSync(path, '{');
  assert.throws(() => loadTokenizer(directory), smoeError('CHECKPOINT_BAD_JSON', path));
  const json = readJson(join(tinyDirectory('olmoe'), 'tokenizer.json'));
  const broken = [
    {},
    { ...json, model: { type: 'WordPiece', vocab: {} } },
    { ...json, model: { type: 'BPE', vocab: { a: -1 }, merges: [] } },
    { ...json, decoder: { type: 'WordPiece' } },
    { ...json, decoder: { type: 'Sequence', decoders: [{ type: 'Fuse' }] } },
    { ...json, pre_tokenizer: { type: 'Nonsense' } },
    { ...json, normalizer: undefined },
  ];
  for (const value of broken) {
    assert.throws(() => createTokenizer(path, value, {}), smoeError('TOKENIZER_UNSUPPORTED', path));
  }
});
