/**
 * A model directory in Hugging Face layout: config.json and safetensors weights in one file or in shards with an
 * index. Opening reads headers only and checks that every tensor the family needs is there with the right shape and a
 * supported dtype, so that a bad checkpoint fails before any rank loads. Open one per thread; nothing is shared.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import * as valibot from 'valibot';
import { SmoeError } from '../errors.ts';
import type { ModelConfig, TensorNames } from './config.ts';
import { expectedTensors } from './expected-tensors.ts';
import { parseModelConfig } from './families/index.ts';
import { readJsonFile } from './json-file.ts';
import type { TensorInfo } from './safetensors-header.ts';
import { SafetensorsFile } from './safetensors.ts';

export type { TensorDtype, TensorInfo } from './safetensors-header.ts';

/** What a tensor the model needs may be stored as. */
export type WeightDtype = 'BF16' | 'F32';

export interface Checkpoint {
  readonly directory: string;
  readonly config: ModelConfig;
  readonly names: TensorNames;
  /** Stored dtype and shape of a tensor; throws CHECKPOINT_MISSING_TENSOR when there is none of that name. */
  tensor(name: string): TensorInfo;
  /** Fills `target` with bytes [byteStart, byteEnd) of a tensor (default: all), as stored, little-endian. */
  readTensor(name: string, target: Uint8Array, byteStart?: number, byteEnd?: number): void;
  /** Closes the files; safe to call twice. */
  close(): void;
}

const indexSchema = valibot.object({ weight_map: valibot.record(valibot.string(), valibot.string()) });

/** Opens and checks a checkpoint. Everything wrong with it is a SmoeError coded CHECKPOINT_... or MODEL_.... */
export function openCheckpoint(directory: string): Checkpoint {
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
    throw new SmoeError('CHECKPOINT_NOT_FOUND', `${directory}: no such directory`, {
      hint: 'Name a directory with config.json, model.safetensors and tokenizer.json.',
    });
  }
  const { config, names } = parseModelConfig(directory);
  const files = openFiles(directory);
  const close = (): void => {
    for (const file of new Set(files.values())) file.close();
  };
  const fileOf = (name: string): SafetensorsFile => {
    const file = files.get(name);
    if (file === undefined) throw missingTensor(directory, name);
    return file;
  };
  const tensor = (name: string): TensorInfo => fileOf(name).tensors.get(name)!;
  try {
    checkTensors(directory, config, names, files);
  } catch (error) {
    close();
    throw error;
  }
  return {
    directory,
    config,
    names,
    tensor,
    readTensor: (name, target, byteStart, byteEnd) => fileOf(name).read(name, target, byteStart, byteEnd),
    close,
  };
}

function missingTensor(directory: string, name: string): SmoeError {
  return new SmoeError('CHECKPOINT_MISSING_TENSOR', `${directory}: no tensor ${JSON.stringify(name)}`, {
    hint: 'The checkpoint is incomplete, or its experts are stored fused: save it in the layout of the Hugging Face hub, one tensor per expert.',
  });
}

/** Tensor name -> the open file that holds it. */
function openFiles(directory: string): Map<string, SafetensorsFile> {
  const single = join(directory, 'model.safetensors');
  if (existsSync(single)) {
    const file = SafetensorsFile.open(single);
    return new Map(Array.from(file.tensors.keys(), (name) => [name, file]));
  }
  const indexPath = join(directory, 'model.safetensors.index.json');
  const index = readJsonFile(indexPath);
  if (index === undefined) {
    throw new SmoeError(
      'CHECKPOINT_NO_WEIGHTS',
      `${directory}: neither model.safetensors nor model.safetensors.index.json`,
      {
        hint: 'Only safetensors weights are read; convert other formats with save_pretrained of transformers.',
      },
    );
  }
  const parsed = valibot.safeParse(indexSchema, index);
  if (!parsed.success) {
    throw new SmoeError('CHECKPOINT_BAD_INDEX', `${indexPath}: ${valibot.summarize(parsed.issues)}`, {
      hint: 'The index must map tensor names to file names under "weight_map".',
    });
  }
  return openShards(directory, indexPath, Object.entries(parsed.output.weight_map));
}

function openShards(directory: string, indexPath: string, weightMap: [string, string][]): Map<string, SafetensorsFile> {
  const shards = new Map<string, SafetensorsFile>();
  const files = new Map<string, SafetensorsFile>();
  try {
    for (const [tensorName, fileName] of weightMap) {
      const shard = shards.get(fileName) ?? openShard(directory, indexPath, fileName);
      shards.set(fileName, shard);
      if (!shard.tensors.has(tensorName)) {
        throw new SmoeError(
          'CHECKPOINT_MISSING_TENSOR',
          `${shard.path}: no tensor ${JSON.stringify(tensorName)}, though ${indexPath} places it there`,
          {
            hint: 'Index and shards are of different versions; download the checkpoint again.',
          },
        );
      }
      files.set(tensorName, shard);
    }
    return files;
  } catch (error) {
    for (const shard of shards.values()) shard.close();
    throw error;
  }
}

/** An index comes from outside: a shard is a plain file name inside the checkpoint's own directory. */
function openShard(directory: string, indexPath: string, fileName: string): SafetensorsFile {
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors$/.test(fileName)) {
    throw new SmoeError(
      'CHECKPOINT_BAD_INDEX',
      `${indexPath}: ${JSON.stringify(fileName)} is not a plain *.safetensors file name`,
      {
        hint: 'Shards must lie beside the index; do not use this checkpoint if you did not expect this.',
      },
    );
  }
  const path = join(directory, fileName);
  if (!existsSync(path)) {
    throw new SmoeError('CHECKPOINT_MISSING_SHARD', `${path}: named by ${indexPath}, but not there`, {
      hint: 'Download the missing shard.',
    });
  }
  return SafetensorsFile.open(path);
}

function checkTensors(
  directory: string,
  config: ModelConfig,
  names: TensorNames,
  files: Map<string, SafetensorsFile>,
): void {
  for (const { name, shape } of expectedTensors(config, names)) {
    const file = files.get(name);
    if (file === undefined) throw missingTensor(directory, name);
    const stored = file.tensors.get(name)!;
    if (stored.shape.length !== shape.length || stored.shape.some((size, axis) => size !== shape[axis])) {
      throw new SmoeError(
        'CHECKPOINT_WRONG_SHAPE',
        `${file.path}: tensor ${JSON.stringify(name)} is [${stored.shape}], config.json asks for [${shape}]`,
        {
          hint: 'config.json and the weights belong to different models.',
        },
      );
    }
    if (stored.dtype !== 'BF16' && stored.dtype !== 'F32') {
      throw new SmoeError(
        'CHECKPOINT_WRONG_DTYPE',
        `${file.path}: tensor ${JSON.stringify(name)} is ${stored.dtype}; BF16 and F32 are supported`,
        {
          hint: 'Load the model with transformers in bfloat16 or float32 and save it again.',
        },
      );
    }
  }
}
