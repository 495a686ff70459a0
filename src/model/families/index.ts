/** The table of supported families, and config.json -> ModelConfig through it. */
import { join } from 'node:path';
import * as valibot from 'valibot';
import { SmoeError } from '../../errors.ts';
import type { ModelConfig, TensorNames } from '../config.ts';
import { readJsonFile } from '../json-file.ts';
import { type Family, parseFields } from './family.ts';
import { mixtral } from './mixtral.ts';
import { olmoe } from './olmoe.ts';
import { qwen3Moe } from './qwen3_moe.ts';

/** To add a family: one file beside this one, one entry here. */
export const families: readonly Family[] = [qwen3Moe, mixtral, olmoe];

const kindSchema = valibot.object({
  architectures: valibot.optional(valibot.array(valibot.string())),
  model_type: valibot.optional(valibot.string()),
});

const tokenId = valibot.pipe(valibot.number(), valibot.integer(), valibot.minValue(0));
const specialTokensSchema = valibot.object({
  bos_token_id: valibot.optional(tokenId),
  eos_token_id: valibot.optional(valibot.union([tokenId, valibot.array(tokenId)])),
});

/** Reads config.json, and generation_config.json where there is one, of a checkpoint directory. */
export function parseModelConfig(directory: string): { config: ModelConfig; names: TensorNames } {
  const path = join(directory, 'config.json');
  const json = readJsonFile(path);
  if (json === undefined) {
    throw new SmoeError('CHECKPOINT_NOT_FOUND', `${path}: no such file`, {
      hint: 'Name a directory with config.json, model.safetensors and tokenizer.json.',
    });
  }
  const family = findFamily(path, json);
  const familyConfig = family.parse(path, json);
  const special = parseFields(path, specialTokensSchema, json);
  const generationPath = join(directory, 'generation_config.json');
  const generation = parseFields(generationPath, specialTokensSchema, readJsonFile(generationPath) ?? {});
  const endTokenIds = [special, generation].flatMap(({ eos_token_id: ids }) => ids ?? []);
  const config: ModelConfig = {
    ...familyConfig,
    beginTokenId: special.bos_token_id ?? generation.bos_token_id,
    endTokenIds: [...new Set(endTokenIds)].sort((a, b) => a - b),
  };
  return { config, names: family.tensorNames(config) };
}

/** By `architectures` when given, else by `model_type`. */
function findFamily(path: string, json: unknown): Family {
  const { architectures, model_type: modelType } = parseFields(path, kindSchema, json);
  const family =
    architectures === undefined || architectures.length === 0
      ? families.find(({ name }) => name === modelType)
      : families.find(({ architecture }) => architectures.includes(architecture));
  if (family !== undefined) return family;
  const found = architectures?.join(', ') || modelType || 'no architecture';
  throw new SmoeError('MODEL_UNSUPPORTED', `${path}: ${found} is not supported`, {
    hint: `Supported: ${families.map(({ name, architecture }) => `${architecture} (${name})`).join(', ')}.`,
  });
}
