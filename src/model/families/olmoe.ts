/** OLMoE: RMS norm over the full query and key projections, then optional clipping of query, key and value. */
import * as valibot from 'valibot';
import { type Family, hubTensorNames, parseCommon, parseFields, positiveField, refuse, sizeField } from './family.ts';

const schema = valibot.object({
  intermediate_size: sizeField,
  norm_topk_prob: valibot.optional(valibot.boolean()),
  clip_qkv: valibot.optional(positiveField),
});

export const olmoe: Family = {
  name: 'olmoe',
  architecture: 'OlmoeForCausalLM',
  parse(path, json) {
    const common = parseCommon(path, json, { ropeTheta: 10_000, rmsEpsilon: 1e-5 });
    const fields = parseFields(path, schema, json);
    // The reference norms hiddenSize query values, so its heads cannot be wider than hiddenSize / heads.
    refuse(path, `head_dim ${common.headDimension}`, common.headDimension * common.heads !== common.hiddenSize);
    return {
      ...common,
      family: 'olmoe',
      expertWidth: fields.intermediate_size,
      normalizeTopK: fields.norm_topk_prob ?? false,
      queryKeyNorm: 'full',
      clipQueryKeyValue: fields.clip_qkv,
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
