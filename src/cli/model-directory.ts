import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../model/checkpoint.ts';
import type { ModelConfig } from '../model/config.ts';
import { fingerprint as fingerprintOf } from '../model/fingerprint.ts';
import type { EmbeddingTable } from '../plan/nearest-token.ts';
import { usageError } from './arguments.ts';
import type { Flags } from './flags.ts';

/** models/demo of this package; the compiled file is dist/src/cli/model-directory.js. */
export const demoDirectory: string = fileURLToPath(new URL('../../../models/demo', import.meta.url));
export const demoProfile: string = join(demoDirectory, 'heldout', 'profile.jsonl');
export const demoEvaluation: string = join(demoDirectory, 'heldout', 'evaluation.jsonl');

export interface ModelFacts {
  directory: string;
  /** For people: `demo`, or the directory as given. */
  name: string;
  config: ModelConfig;
  fingerprint: string;
}

/** The model named by the positional argument or --model, or the shipped one; opening it checks its headers. */
export function readModel(flags: Flags): ModelFacts {
  const positional = flags.optional('directory');
  const flag = flags.optional('model');
  if (positional !== undefined && flag !== undefined && positional !== flag) {
    throw usageError('USAGE_BAD_VALUE', `--model: ${flag} is not ${positional}, the model named first`, {
      hint: 'name one model',
    });
  }
  const directory = positional ?? flag ?? demoDirectory;
  const checkpoint = openCheckpoint(directory);
  try {
    const name = directory === demoDirectory ? 'demo' : directory;
    return { directory, name, config: checkpoint.config, fingerprint: fingerprintOf(checkpoint) };
  } finally {
    checkpoint.close();
  }
}

/** The embedding matrix as float32, by which solvers find neighbours of token ids they never saw. */
export function readEmbedding(directory: string): EmbeddingTable {
  const checkpoint = openCheckpoint(directory);
  try {
    const { config, names } = checkpoint;
    const { dtype } = checkpoint.tensor(names.embedding);
    const length = config.vocabularySize * config.hiddenSize;
    const values = new Float32Array(length);
    if (dtype === 'F32') checkpoint.readTensor(names.embedding, new Uint8Array(values.buffer));
    else {
      // bfloat16 is the upper half of a float32.
      const halves = new Uint16Array(length);
      checkpoint.readTensor(names.embedding, new Uint8Array(halves.buffer));
      const words = new Uint32Array(values.buffer);
      for (let i = 0; i < length; i++) words[i] = halves[i]! << 16;
    }
    return { values, hiddenSize: config.hiddenSize };
  } finally {
    checkpoint.close();
  }
}

/** A path as a person at the current directory would write it. */
export function shortPath(path: string): string {
  const fromHere = relative('.', path);
  return fromHere.startsWith('..') || !existsSync(fromHere) ? path : fromHere;
}
