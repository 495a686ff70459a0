/**
 * A short name for a checkpoint's routing behaviour, by which traces and plans know the model they were made for.
 *
 * SHA-256, first 16 hex digits, over: the normalised configuration without what cannot change routing (special token
 * ids, maximum positions); name, dtype and shape of every tensor the model needs; the bytes of every router; the first
 * 4 KiB of the embedding. Files, shards and stray tensors do not matter; fine-tuning that leaves routers and those
 * embedding rows untouched is not noticed. Cost: the routers are under 1 % of a checkpoint.
 */
import { createHash } from 'node:crypto';
import type { Checkpoint } from './checkpoint.ts';
import { expectedTensors } from './expected-tensors.ts';

const embeddingBytes = 4096;

/** 16 hex digits; see above for what they depend on. */
export function fingerprint(checkpoint: Checkpoint): string {
  const { config, names } = checkpoint;
  const hash = createHash('sha256');
  const { beginTokenId: _begin, endTokenIds: _end, maximumPositions: _positions, ...architecture } = config;
  const sorted = Object.entries(architecture).sort(([a], [b]) => (a < b ? -1 : 1));
  hash.update(`${JSON.stringify(sorted.map(([key, value]) => [key, value ?? null]))}\n`);
  for (const { name } of expectedTensors(config, names)) {
    const { dtype, shape } = checkpoint.tensor(name);
    hash.update(`${JSON.stringify([name, dtype, shape])}\n`);
  }
  const update = (name: string, limit: number): void => {
    const bytes = new Uint8Array(Math.min(limit, checkpoint.tensor(name).byteLength));
    checkpoint.readTensor(name, bytes, 0, bytes.byteLength);
    hash.update(bytes);
  };
  update(names.embedding, embeddingBytes);
  for (let layer = 0; layer < config.layers; layer += 1) update(names.layer(layer).router, Number.POSITIVE_INFINITY);
  return hash.digest('hex').slice(0, 16);
}
