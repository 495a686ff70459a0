/** Qwen3-MoE: RMS norm over each query and key head, softmax router, no shared expert. */
import * as valibot from 'valibot';
import { type Family, hubTensorNames, parseCommon, parseFields, refuse, sizeField } from './family.ts';

const schema = valibot.object({
  moe_intermediate_size: sizeField,
  norm_topk_prob: valibot.optional(valibot.boolean()),
  decoder_sparse_step: valibot.optional(valibot.number()),
  mlp_only_layers: valibot.optional(valibot.array(valibot.number())),
  use_sliding_window: valibot.optional(valibot.boolean()),
});

export const qwen3Moe: Family = {
  name: 'qwen3_moe',
  architecture: 'Qwen3MoeForCausalLM',
  parse(path, json) {
    const common = parseCommon(path, json, { ropeTheta: 10_000, rmsEpsilon: 1e-6 });
    const fields = parseFields(path, schema, json);
    refuse(path, `decoder_sparse_step ${fields.decoder_sparse_step}`, (fields.decoder_sparse_step ?? 1) !== 1);
    refuse(path, 'mlp_only_layers', (fields.mlp_only_layers ?? []).length > 0);
    refuse(path, 'use_sliding_window', fields.use_sliding_window === true);
    return {
      ...common,
      family: 'qwen3_moe',
      expertWidth: fields.moe_intermediate_size,
      normalizeTopK: fields.norm_topk_prob ?? false,
      queryKeyNorm: 'head',
      clipQueryKeyValue: undefined,
      slidingWindow: undefined,
    };
  },
  tensorNames: (config) =>
    hubTensorNames(config.tieEmbeddings, {
      queryKeyNorm: true,
      block: 'mlp',
      gate: 'gate_proj',
      up: 'up_proj',
      down: 'down_proj',
    }),
};
