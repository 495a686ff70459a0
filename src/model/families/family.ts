/** What a model family is to the rest of the project, and what the families share. */
import * as valibot from 'valibot';
import { SmoeError } from '../../errors.ts';
import type { ModelConfig, ModelFamily, TensorNames } from '../config.ts';

/** The fields of ModelConfig that follow from a family's own part of config.json. */
export type FamilyConfig = Omit<ModelConfig, 'beginTokenId' | 'endTokenIds'>;

export interface Family {
  /** `model_type` in config.json. */
  readonly name: ModelFamily;
  /** Entry of `architectures` in config.json. */
  readonly architecture: string;
  /** Checks config.json, refusing by name what is not supported. `path` is for messages. */
  parse(path: string, json: unknown): FamilyConfig;
  tensorNames(config: FamilyConfig): TensorNames;
}

/** A count or width in config.json; sizes beyond any real model are refused rather than multiplied. */
export const sizeField: valibot.GenericSchema<number> = valibot.pipe(
  valibot.number(),
  valibot.integer(),
  valibot.minValue(1),
  valibot.maxValue(2 ** 31 - 1),
);
/** A positive finite number in config.json. */
export const positiveField: valibot.GenericSchema<number> = valibot.pipe(
  valibot.number(),
  valibot.finite(),
  valibot.gtValue(0),
);

const ropeSchema = valibot.object({
  rope_theta: valibot.optional(positiveField),
  rope_type: valibot.optional(valibot.string()),
  type: valibot.optional(valibot.string()),
});

/** Fields of config.json that mean the same in every family; transformers 4 and 5 spellings both. */
const commonSchema = valibot.object({
  num_hidden_layers: sizeField,
  hidden_size: sizeField,
  vocab_size: sizeField,
  num_attention_heads: sizeField,
  num_key_value_heads: valibot.optional(sizeField),
  head_dim: valibot.optional(sizeField),
  num_experts: valibot.optional(sizeField),
  num_local_experts: valibot.optional(sizeField),
  num_experts_per_tok: sizeField,
  max_position_embeddings: sizeField,
  rms_norm_eps: valibot.optional(positiveField),
  rope_theta: valibot.optional(positiveField),
  rope_scaling: valibot.optional(valibot.unknown()),
  rope_parameters: valibot.optional(valibot.unknown()),
  hidden_act: valibot.optional(valibot.string()),
  attention_bias: valibot.optional(valibot.boolean()),
  tie_word_embeddings: valibot.optional(valibot.boolean()),
  quantization_config: valibot.optional(valibot.unknown()),
});

/** Parses with a schema, null fields as absent ones; a mismatch names the file and every field that is wrong. */
export function parseFields<Schema extends valibot.GenericSchema>(
  path: string,
  schema: Schema,
  json: unknown,
): valibot.InferOutput<Schema> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw invalid(path, 'not a JSON object');
  const present = Object.fromEntries(Object.entries(json).filter(([, value]) => value !== null));
  const result = valibot.safeParse(schema, present);
  if (result.success) return result.output;
  throw invalid(path, valibot.summarize(result.issues));
}

function invalid(path: string, problem: string): SmoeError {
  return new SmoeError('MODEL_CONFIG_INVALID', `${path}: ${problem}`, {
    hint: 'Compare with the config.json of the same model on the Hugging Face hub.',
  });
}

/** Throws MODEL_UNSUPPORTED, naming the feature, when `present`. */
export function refuse(path: string, feature: string, present: boolean): void {
  if (!present) return;
  throw new SmoeError('MODEL_UNSUPPORTED', `${path}: ${feature} is not supported`, {
    hint: 'Use a checkpoint without it.',
  });
}

/** What transformers assumes when config.json leaves a field out. */
export interface FamilyDefaults {
  ropeTheta: number;
  rmsEpsilon: number;
}

export type CommonConfig = Pick<
  FamilyConfig,
  | 'layers'
  | 'hiddenSize'
  | 'vocabularySize'
  | 'heads'
  | 'keyValueHeads'
  | 'headDimension'
  | 'experts'
  | 'topK'
  | 'ropeTheta'
  | 'rmsEpsilon'
  | 'tieEmbeddings'
  | 'maximumPositions'
>;

/** The part of config.json all families share, checked for consistency. */
export function parseCommon(path: string, json: unknown, defaults: FamilyDefaults): CommonConfig {
  const fields = parseFields(path, commonSchema, json);
  const rope = parseFields(path, ropeSchema, fields.rope_parameters ?? {});
  for (const { rope_type, type } of [rope, parseFields(path, ropeSchema, fields.rope_scaling ?? {})]) {
    const kind = rope_type ?? type ?? 'default';
    refuse(path, `rope scaling ${JSON.stringify(kind)}`, kind !== 'default');
  }
  const activation = fields.hidden_act ?? 'silu';
  refuse(path, `hidden_act ${JSON.stringify(activation)}`, activation !== 'silu');
  refuse(path, 'attention_bias', fields.attention_bias === true);
  refuse(path, 'quantization_config', fields.quantization_config !== undefined);

  const experts = fields.num_experts ?? fields.num_local_experts;
  if (experts === undefined) throw invalid(path, 'neither num_experts nor num_local_experts is given');
  const heads = fields.num_attention_heads;
  const keyValueHeads = fields.num_key_value_heads ?? heads;
  if (heads % keyValueHeads !== 0)
    throw invalid(path, `${heads} heads do not share ${keyValueHeads} key-value heads evenly`);
  const headDimension = fields.head_dim ?? fields.hidden_size / heads;
  if (!Number.isInteger(headDimension) || headDimension % 2 !== 0) {
    throw invalid(path, `head dimension ${headDimension} is not an even integer`);
  }
  if (fields.num_experts_per_tok > experts) {
    throw invalid(path, `num_experts_per_tok ${fields.num_experts_per_tok} exceeds the ${experts} experts`);
  }
  return {
    layers: fields.num_hidden_layers,
    hiddenSize: fields.hidden_size,
    vocabularySize: fields.vocab_size,
    heads,
    keyValueHeads,
    headDimension,
    experts,
    topK: fields.num_experts_per_tok,
    ropeTheta: rope.rope_theta ?? fields.rope_theta ?? defaults.ropeTheta,
    rmsEpsilon: fields.rms_norm_eps ?? defaults.rmsEpsilon,
    tieEmbeddings: fields.tie_word_embeddings ?? false,
    maximumPositions: fields.max_position_embeddings,
  };
}

/** Where a family's names differ from the layout all three share. */
export interface MoeNames {
  queryKeyNorm: boolean;
  /** Module of the router and experts under `model.layers.N.`. */
  block: string;
  gate: string;
  up: string;
  down: string;
}

/** Tensor names as on the Hugging Face hub: Llama's layout around one tensor per expert and projection. */
export function hubTensorNames(tieEmbeddings: boolean, moe: MoeNames): TensorNames {
  const embedding = 'model.embed_tokens.weight';
  return {
    embedding,
    finalNorm: 'model.norm.weight',
    output: tieEmbeddings ? embedding : 'lm_head.weight',
    layer: (layer) => {
      const prefix = `model.layers.${layer}`;
      const attention = `${prefix}.self_attn`;
      const block = `${prefix}.${moe.block}`;
      return {
        inputNorm: `${prefix}.input_layernorm.weight`,
        query: `${attention}.q_proj.weight`,
        key: `${attention}.k_proj.weight`,
        value: `${attention}.v_proj.weight`,
        attentionOutput: `${attention}.o_proj.weight`,
        queryNorm: moe.queryKeyNorm ? `${attention}.q_norm.weight` : undefined,
        keyNorm: moe.queryKeyNorm ? `${attention}.k_norm.weight` : undefined,
        postAttentionNorm: `${prefix}.post_attention_layernorm.weight`,
        router: `${block}.gate.weight`,
        expert: (expert) => ({
          gate: `${block}.experts.${expert}.${moe.gate}.weight`,
          up: `${block}.experts.${expert}.${moe.up}.weight`,
          down: `${block}.experts.${expert}.${moe.down}.weight`,
        }),
      };
    },
  };
}
