import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { SmoeError } from '../../src/errors.ts';
import { lengthFieldBytes, parseHeader, parseHeaderLength } from '../../src/model/safetensors-header.ts';
import { SafetensorsFile } from '../../src/model/safetensors.ts';
import { smoeError, temporaryDirectory, tinyDirectory } from './fixtures.ts';

/** The project's type libraries have no WebAssembly. */
const { Memory } = (
  globalThis as unknown as { WebAssembly: { Memory: new (limits: object) => { buffer: SharedArrayBuffer } } }
).WebAssembly;

/** A file of this header text (or value) and that many data bytes, counting 0, 1, 2, ... */
function makeFile(header: unknown, dataBytes: number): Uint8Array {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const file = Buffer.alloc(lengthFieldBytes + json.length + dataBytes);
  file.writeBigUInt64LE(BigInt(json.length));
  json.copy(file, lengthFieldBytes);
  for (let index = 0; index < dataBytes; index += 1) file[lengthFieldBytes + json.length + index] = index;
  return new Uint8Array(file);
}

/** What opening does, on bytes in memory. */
function parseFile(file: Uint8Array): ReturnType<typeof parseHeader> {
  const length = parseHeaderLength('f', file.subarray(0, lengthFieldBytes), file.length);
  return parseHeader('f', file.subarray(lengthFieldBytes, lengthFieldBytes + length), file.length);
}

const entry = (dtype: string, shape: unknown, begin: unknown, end: unknown): object => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

test('a header lists tensors in file order', () => {
  const tensors = parseFile(
    makeFile(
      {
        __metadata__: { format: 'pt' },
        b: entry('F32', [2], 4, 12),
        a: entry('BF16', [1, 2], 0, 4),
        empty: entry('U8', [0, 3], 12, 12),
      },
      12,
    ),
  );
  assert.deepEqual([...tensors.keys()], ['a', 'b', 'empty']);
  assert.deepEqual(tensors.get('a')?.shape, [1, 2]);
  assert.equal(tensors.get('b')!.fileOffset - tensors.get('a')!.fileOffset, 4);
  assert.equal(tensors.get('empty')?.byteLength, 0);
});

test('a scalar and a padded header are fine', () => {
  assert.deepEqual(
    parseFile(makeFile('{"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}   ', 8)).get('s')?.shape,
    [],
  );
});

test('a tensor may be called __proto__ without harm', () => {
  const tensors = parseFile(
    makeFile('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"polluted":true}}', 1),
  );
  assert.deepEqual([...tensors.keys()], ['__proto__']);
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
});

const refused: [string, string, Uint8Array][] = [
  ['empty file', 'CHECKPOINT_TRUNCATED', new Uint8Array(0)],
  ['seven bytes', 'CHECKPOINT_TRUNCATED', new Uint8Array(7)],
  ['zero header length', 'CHECKPOINT_BAD_HEADER', new Uint8Array(8)],
  ['enormous header length', 'CHECKPOINT_BAD_HEADER', new Uint8Array(16).fill(255)],
  ['header beyond the file', 'CHECKPOINT_TRUNCATED', makeFile({}, 0).with(0, 200)],
  ['not JSON', 'CHECKPOINT_BAD_HEADER', makeFile('{"a":', 0)],
  ['not UTF-8', 'CHECKPOINT_BAD_HEADER', makeFile('{"a" }', 0).with(11, 0xff)],
  ['a list', 'CHECKPOINT_BAD_HEADER', makeFile('[]', 0)],
  ['null', 'CHECKPOINT_BAD_HEADER', makeFile('null', 0)],
  ['leading space', 'CHECKPOINT_BAD_HEADER', makeFile(' {}', 0)],
  ['entry not an object', 'CHECKPOINT_BAD_HEADER', makeFile({ a: 1 }, 0)],
  ['unknown dtype', 'CHECKPOINT_BAD_HEADER', makeFile({ a: entry('F33', [1], 0, 4) }, 4)],
  ['inherited name as dtype', 'CHECKPOINT_BAD_HEADER', makeFile({ a: entry('constructor', [1], 0, 4) }, 4)],
  ['negative shape', 'CHECKPOINT_BAD_HEADER', makeFile({ a: entry('F32', [-1], 0, 4) }, 4)],
  ['fractional shape', 'CHECKPOINT_BAD_HEADER', makeFile({ a: entry('F32', [0.5, 2], 0, 4) }, 4)],
  ['shape not a list', 'CHECKPOINT_BAD_HEADER', makeFile({ a: entry('F32', 1, 0, 4) }, 4)],
  ['shape overflow', 'CHECKPOINT_BAD_HEADER', makeFile({ a: entry('F32', [2 ** 52, 2 ** 52], 0, 4) }, 4)],
  ['missing offsets', 'CHECKPOINT_BAD_OFFSETS', makeFile({ a: { dtype: 'F32', shape: [1] } }, 4)],
  ['negative offsets', 'CHECKPOINT_BAD_OFFSETS', makeFile({ a: entry('F32', [1], -4, 0) }, 4)],
  ['reversed offsets', 'CHECKPOINT_BAD_OFFSETS', makeFile({ a: entry('F32', [1], 4, 0) }, 4)],
  ['size and shape differ', 'CHECKPOINT_BAD_OFFSETS', makeFile({ a: entry('F32', [2], 0, 4) }, 4)],
  ['overlap', 'CHECKPOINT_BAD_OFFSETS', makeFile({ a: entry('F32', [2], 0, 8), b: entry('F32', [1], 4, 8) }, 8)],
  ['hole', 'CHECKPOINT_BAD_OFFSETS', makeFile({ a: entry('F32', [1], 0, 4), b: entry('F32', [1], 8, 12) }, 12)],
  ['bytes after the end', 'CHECKPOINT_BAD_OFFSETS', makeFile({ a: entry('F32', [1], 0, 4) }, 5)],
  ['data cut off', 'CHECKPOINT_TRUNCATED', makeFile({ a: entry('F32', [1], 0, 4) }, 3)],
  [
    'duplicate',
    'CHECKPOINT_BAD_HEADER',
    makeFile(
      '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      1,
    ),
  ],
];

for (const [what, code, file] of refused) {
  test(`refused: ${what}`, () => assert.throws(() => parseFile(file), smoeError(code, 'f: ')));
}

test('the same field name inside two tensors is no duplicate', () => {
  const tricky = { 'a"]{,:': entry('U8', [1], 0, 1), '\\': entry('U8', [1], 1, 2), dtype: entry('U8', [1], 2, 3) };
  assert.equal(parseFile(makeFile(tricky, 3)).size, 3);
});

test('mutated and truncated bytes fail with a SmoeError or parse to ranges inside the file', () => {
  const original = new Uint8Array(readFileSync(join(tinyDirectory('mixtral'), 'model-00001-of-00002.safetensors')));
  const headerEnd = lengthFieldBytes + parseHeaderLength('f', original, original.length);
  const mutation = fc.tuple(
    fc.oneof(fc.nat(40), fc.nat(headerEnd)),
    fc.oneof(fc.nat(255), fc.constantFrom(...Buffer.from('{}[]",:-019'))),
  );
  fc.assert(
    fc.property(fc.array(mutation, { maxLength: 6 }), fc.option(fc.nat(original.length)), (mutations, length) => {
      const file = original.slice(0, length ?? original.length);
      for (const [position, value] of mutations) if (position < file.length) file[position] = value;
      try {
        for (const { fileOffset, byteLength } of parseFile(file).values()) {
          assert.ok(fileOffset >= lengthFieldBytes && fileOffset + byteLength <= file.length);
        }
      } catch (error) {
        if (!(error instanceof SmoeError)) throw error;
      }
    }),
    { numRuns: 400 },
  );
});

test('any header value is parsed or refused', () => {
  const field = fc.oneof(fc.jsonValue(), fc.constantFrom('F32', 'BF16', 'U8', [0, 4], [1]));
  const tensor = fc.record({ dtype: field, shape: field, data_offsets: field }, { requiredKeys: [] });
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.oneof(tensor, fc.jsonValue())), fc.nat(8), (header, dataBytes) => {
      try {
        parseFile(makeFile(header, dataBytes));
      } catch (error) {
        if (!(error instanceof SmoeError)) throw error;
      }
    }),
    { numRuns: 500 },
  );
});

test('reads whole tensors and ranges into ordinary, shared and WebAssembly memory', (context) => {
  const path = join(temporaryDirectory(context), 'model.safetensors');
  writeFileSync(path, makeFile({ a: entry('U8', [4], 0, 4), b: entry('U8', [6], 4, 10) }, 10));
  const file = SafetensorsFile.open(path);
  context.after(() => file.close());
  const memory = new Memory({ initial: 1, maximum: 1, shared: true });
  for (const buffer of [new ArrayBuffer(64), new SharedArrayBuffer(64), memory.buffer]) {
    const target = new Uint8Array(buffer, 8, 6);
    file.read('b', target);
    assert.deepEqual([...target], [4, 5, 6, 7, 8, 9]);
    file.read('b', target.subarray(0, 2), 3, 5);
    assert.deepEqual([...new Uint8Array(buffer, 7, 5)], [0, 7, 8, 6, 7]);
  }
  file.read('a', new Uint8Array(0), 4, 4);
});

test('reading refuses unknown names, ranges outside the tensor, closed files and files cut since', (context) => {
  const path = join(temporaryDirectory(context), 'model.safetensors');
  writeFileSync(path, makeFile({ a: entry('U8', [4], 0, 4), b: entry('U8', [4], 4, 8) }, 8));
  const file = SafetensorsFile.open(path);
  const four = new Uint8Array(4);
  assert.throws(() => file.read('c', four), smoeError('CHECKPOINT_MISSING_TENSOR', path, '"c"'));
  for (const [start, end] of [
    [1, 5],
    [-1, 3],
    [0, 3],
    [4, 0],
    [0.5, 4.5],
    [Number.NaN, 4],
  ]) {
    assert.throws(() => file.read('a', four, start, end), smoeError('CHECKPOINT_BAD_READ', path, '"a"'));
  }
  truncateSync(path, readFileSync(path).length - 2);
  assert.throws(() => file.read('b', four), smoeError('CHECKPOINT_TRUNCATED', path));
  file.close();
  file.close();
  assert.throws(() => file.read('a', four), smoeError('CHECKPOINT_BAD_READ', 'closed'));
});

test('opening what is not a file', (context) => {
  const directory = temporaryDirectory(context);
  assert.throws(() => SafetensorsFile.open(join(directory, 'none')), smoeError('CHECKPOINT_UNREADABLE', 'none'));
  assert.throws(() => SafetensorsFile.open(directory), smoeError('CHECKPOINT_UNREADABLE', directory));
  writeFileSync(join(directory, 'short'), 'abc');
  assert.throws(() => SafetensorsFile.open(join(directory, 'short')), smoeError('CHECKPOINT_TRUNCATED', 'short'));
});
