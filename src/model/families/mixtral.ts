/** Mixtral: the k router probabilities always divided by their sum; w1, w3, w2 are gate, up, down. */
import * as valibot from 'valibot';
import { type Family, hubTensorNames, parseCommon, parseFields, sizeField } from './family.ts';

const schema = valibot.object({
  intermediate_size: sizeField,
  sliding_window: valibot.optional(sizeField),
});

export const mixtral: Family = {
  name: 'mixtral',
  architecture: 'MixtralForCausalLM',
  parse(path, json) {
    const common = parseCommon(path, json, { ropeTheta: 1_000_000, rmsEpsilon: 1e-5 });
    const fields = parseFields(path, schema, json);
    return {
      ...common,
      family: 'mixtral',
      expertWidth: fields.intermediate_size,
      normalizeTopK: true,
      queryKeyNorm: 'none',
      clipQueryKeyValue: undefined,
      slidingWindow: fields.sliding_window,
    };
  },
  tensorNames: (config) =>
    hubTensorNames(config.tieEmbeddings, {
      queryKeyNorm: false,
      block: 'block_sparse_moe',
      gate: 'w1',
      up: 'w3',
      down: 'w2',
    }),
};
