import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { fingerprint } from '../../src/model/fingerprint.ts';
import { copyTiny, readJson, tinyDirectory, tinyFamilies } from './fixtures.ts';

function fingerprintOf(directory: string): string {
  const checkpoint = openCheckpoint(directory);
  try {
    return fingerprint(checkpoint);
  } finally {
    checkpoint.close();
  }
}

test('16 hex digits, different for different models, equal for copies', (context) => {
  const prints = tinyFamilies.map((family) => fingerprintOf(tinyDirectory(family)));
  for (const print of prints) assert.match(print, /^[0-9a-f]{16}$/);
  assert.equal(new Set(prints).size, prints.length);
  assert.equal(fingerprintOf(copyTiny(context, 'mixtral')), prints[1]);
});

test('changes with routers, embedding and architecture, not with end tokens', (context) => {
  const directory = copyTiny(context, 'olmoe');
  const original = fingerprintOf(directory);
  const configPath = join(directory, 'config.json');
  const config = readJson(configPath);
  writeFileSync(configPath, JSON.stringify({ ...config, eos_token_id: 7, max_position_embeddings: 512 }));
  assert.equal(fingerprintOf(directory), original);
  writeFileSync(configPath, JSON.stringify({ ...config, norm_topk_prob: true }));
  assert.notEqual(fingerprintOf(directory), original);
  writeFileSync(configPath, JSON.stringify(config));

  const weights = join(directory, 'model.safetensors');
  const file = readFileSync(weights);
  const dataStart = 8 + Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString('utf8', 8, dataStart)) as Record<string, { data_offsets: [number, number] }>;
  const changed = (name: string, byte: number): string => {
    const copy = Buffer.from(file);
    copy[dataStart + header[name].data_offsets[0] + byte] ^= 1;
    writeFileSync(weights, copy);
    return fingerprintOf(directory);
  };
  assert.notEqual(changed('model.layers.1.mlp.gate.weight', 900), original);
  assert.notEqual(changed('model.embed_tokens.weight', 4095), original);
  assert.equal(changed('model.embed_tokens.weight', 4096), original);
});
