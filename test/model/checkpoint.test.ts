import assert from 'node:assert/strict';
import { readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { expectedTensors } from '../../src/model/expected-tensors.ts';
import {
  copyTiny,
  readGolden,
  readJson,
  smoeError,
  temporaryDirectory,
  tinyDirectory,
  tinyFamilies,
} from './fixtures.ts';

for (const family of tinyFamilies) {
  test(`${family}: opens, and every tensor the model needs can be read`, () => {
    const checkpoint = openCheckpoint(tinyDirectory(family));
    const { config, names } = checkpoint;
    assert.equal(config.family, family);
    for (const { name, shape } of expectedTensors(config, names)) {
      const { dtype, shape: stored, byteLength } = checkpoint.tensor(name);
      assert.equal(dtype, family === 'mixtral' ? 'F32' : 'BF16');
      assert.deepEqual(stored, shape);
      const bytes = new Uint8Array(byteLength);
      checkpoint.readTensor(name, bytes);
      assert.ok(bytes.some((byte) => byte !== 0));
    }
    checkpoint.close();
    checkpoint.close();
  });

  test(`${family}: goldens are complete and clear of ties`, () => {
    const { config } = openCheckpoint(tinyDirectory(family));
    const { prompts, logits, vocabularySize, smallestDistanceFromTie } = readGolden(family);
    assert.equal(vocabularySize, config.vocabularySize);
    assert.equal(logits.length, vocabularySize * prompts.reduce((sum, { tokens }) => sum + tokens.length, 0));
    assert.ok(logits.every(Number.isFinite));
    assert.ok(smallestDistanceFromTie > 1e-4);
    for (const { tokens, greedy, routing } of prompts) {
      assert.equal(greedy.length, 12);
      assert.equal(routing.length, config.layers);
      for (const { experts, gaps } of routing) {
        assert.equal(gaps.length, tokens.length);
        assert.ok(
          experts.every((ids) => ids.length === config.topK && ids.every((id, k) => k === 0 || id > ids[k - 1])),
        );
      }
    }
  });
}

test('tensors are read as stored', () => {
  const checkpoint = openCheckpoint(tinyDirectory('mixtral'));
  const path = join(tinyDirectory('mixtral'), 'model-00002-of-00002.safetensors');
  const file = readFileSync(path);
  const name = checkpoint.names.layer(0).router;
  const header = JSON.parse(file.toString('utf8', 8, 8 + Number(file.readBigUInt64LE()))) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  const [begin, end] = header[name].data_offsets;
  const dataStart = 8 + Number(file.readBigUInt64LE());
  const bytes = new Uint8Array(end - begin);
  checkpoint.readTensor(name, bytes);
  assert.deepEqual(bytes, new Uint8Array(file.subarray(dataStart + begin, dataStart + end)));
  checkpoint.readTensor(name, bytes.subarray(0, 4), 8, 12);
  assert.deepEqual([...bytes.subarray(0, 4)], [...file.subarray(dataStart + begin + 8, dataStart + begin + 12)]);
  assert.throws(() => checkpoint.tensor('toString'), smoeError('CHECKPOINT_MISSING_TENSOR', 'toString'));
  assert.throws(() => checkpoint.readTensor('x', bytes), smoeError('CHECKPOINT_MISSING_TENSOR', '"x"'));
  checkpoint.close();
});

test('worker threads open their own', async () => {
  const module = new URL('../../src/model/checkpoint.js', import.meta.url).href;
  const code = `
    import { parentPort, workerData } from 'node:worker_threads';
    const { openCheckpoint } = await import(workerData.module);
    const checkpoint = openCheckpoint(workerData.directory);
    const bytes = new Uint8Array(64);
    checkpoint.readTensor(checkpoint.names.embedding, bytes, 0, 64);
    parentPort.postMessage(bytes);
    checkpoint.close();`;
  const directory = tinyDirectory('qwen3_moe');
  const read = (): Promise<Uint8Array> =>
    new Promise((resolve, reject) => {
      const url = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
      const worker = new Worker(url, { workerData: { module, directory } });
      worker.once('message', resolve).once('error', reject);
    });
  const [a, b] = await Promise.all([read(), read()]);
  assert.deepEqual(a, b);
});

test('a directory that is no checkpoint', (context) => {
  const empty = temporaryDirectory(context);
  assert.throws(() => openCheckpoint(join(empty, 'none')), smoeError('CHECKPOINT_NOT_FOUND', 'none'));
  assert.throws(() => openCheckpoint(empty), smoeError('CHECKPOINT_NOT_FOUND', 'config.json'));
  writeFileSync(join(empty, 'config.json'), '{"a":');
  assert.throws(() => openCheckpoint(empty), smoeError('CHECKPOINT_BAD_JSON', 'config.json'));
});

test('missing weights, shards and indexed tensors', (context) => {
  const directory = copyTiny(context, 'mixtral');
  const shard = join(directory, 'model-00002-of-00002.safetensors');
  renameSync(shard, `${shard}.gone`);
  assert.throws(() => openCheckpoint(directory), smoeError('CHECKPOINT_MISSING_SHARD', shard));
  renameSync(`${shard}.gone`, shard);
  truncateSync(shard, 50_000);
  assert.throws(() => openCheckpoint(directory), smoeError('CHECKPOINT_TRUNCATED', shard));
  rmSync(join(directory, 'model.safetensors.index.json'));
  assert.throws(() => openCheckpoint(directory), smoeError('CHECKPOINT_NO_WEIGHTS', directory));
});

function editIndex(context: TestContext, edit: (weightMap: Record<string, string>) => unknown): string {
  const directory = copyTiny(context, 'mixtral');
  const path = join(directory, 'model.safetensors.index.json');
  const index = readJson<{ weight_map: Record<string, string> }>(path);
  writeFileSync(path, JSON.stringify({ weight_map: edit(index.weight_map) ?? index.weight_map }));
  return directory;
}

test('an index cannot lead outside the directory', (context) => {
  for (const name of [
    '../model.safetensors',
    '/etc/passwd',
    '..',
    'a/b.safetensors',
    'a\\b.safetensors',
    '.safetensors',
    'model.bin',
    '',
  ]) {
    const directory = editIndex(context, (map) => void (map['model.norm.weight'] = name));
    assert.throws(() => openCheckpoint(directory), smoeError('CHECKPOINT_BAD_INDEX', JSON.stringify(name)));
  }
});

test('an index that is wrong', (context) => {
  const norm = 'model.norm.weight';
  assert.throws(() => openCheckpoint(editIndex(context, () => [1])), smoeError('CHECKPOINT_BAD_INDEX', 'index.json'));
  const swapped = editIndex(context, (map) => {
    map[norm] = map[norm].startsWith('model-00001')
      ? 'model-00002-of-00002.safetensors'
      : 'model-00001-of-00002.safetensors';
  });
  assert.throws(() => openCheckpoint(swapped), smoeError('CHECKPOINT_MISSING_TENSOR', norm, 'index.json'));
  const absent = editIndex(context, (map) => void delete map[norm]);
  assert.throws(() => openCheckpoint(absent), smoeError('CHECKPOINT_MISSING_TENSOR', norm));
});

/** Replaces text in the header of the one weight file by text of equal length. */
function editHeader(context: TestContext, from: string, to: string): string {
  const directory = copyTiny(context, 'olmoe');
  const path = join(directory, 'model.safetensors');
  const file = readFileSync(path);
  const at = file.indexOf(from);
  assert.ok(at > 0 && from.length === to.length);
  file.write(to, at);
  writeFileSync(path, file);
  return directory;
}

test('tensors that are missing, misshapen or of another dtype are found at opening', (context) => {
  const missing = editHeader(context, 'mlp.experts.3.up_proj', 'mlp.experts.3.UP_proj');
  assert.throws(
    () => openCheckpoint(missing),
    smoeError('CHECKPOINT_MISSING_TENSOR', 'model.layers.0.mlp.experts.3.up_proj.weight'),
  );
  const flat = editHeader(
    context,
    '"model.embed_tokens.weight":{"dtype":"BF16","shape":[320,64]',
    '"model.embed_tokens.weight":{"dtype":"BF16","shape":[640,32]',
  );
  assert.throws(
    () => openCheckpoint(flat),
    smoeError('CHECKPOINT_WRONG_SHAPE', 'embed_tokens', '[640,32]', '[320,64]'),
  );
  const half = editHeader(
    context,
    '"lm_head.weight":{"dtype":"BF16","shape"',
    '"lm_head.weight":{"dtype": "F16","shape"',
  );
  assert.throws(() => openCheckpoint(half), smoeError('CHECKPOINT_WRONG_DTYPE', 'lm_head.weight', 'F16'));
});

test('a configuration with absurd counts fails at once', (context) => {
  const directory = copyTiny(context, 'olmoe');
  const path = join(directory, 'config.json');
  writeFileSync(path, JSON.stringify({ ...readJson(path), num_hidden_layers: 2_000_000_000 }));
  assert.throws(() => openCheckpoint(directory), smoeError('CHECKPOINT_MISSING_TENSOR', 'model.layers.2.'));
});
