import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { ModelConfig } from '../../src/model/config.ts';
import { parseModelConfig } from '../../src/model/families/index.ts';
import { smoeError, temporaryDirectory, tinyDirectory } from './fixtures.ts';

/** config.json as transformers 4 wrote it for models on the hub. */
const qwen3 = {
  architectures: ['Qwen3MoeForCausalLM'],
  attention_bias: false,
  bos_token_id: 151643,
  decoder_sparse_step: 1,
  eos_token_id: 151645,
  head_dim: 128,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 6144,
  max_position_embeddings: 40960,
  max_window_layers: 48,
  mlp_only_layers: [],
  model_type: 'qwen3_moe',
  moe_intermediate_size: 768,
  norm_topk_prob: true,
  num_attention_heads: 32,
  num_experts: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 48,
  num_key_value_heads: 4,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000.0,
  sliding_window: null,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  use_sliding_window: false,
  vocab_size: 151936,
};
const mixtral = {
  architectures: ['MixtralForCausalLM'],
  attention_dropout: 0.0,
  bos_token_id: 1,
  eos_token_id: 2,
  hidden_act: 'silu',
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  model_type: 'mixtral',
  num_attention_heads: 32,
  num_experts_per_tok: 2,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  num_local_experts: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 1000000.0,
  sliding_window: null,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  vocab_size: 32000,
};
const olmoe = {
  architectures: ['OlmoeForCausalLM'],
  attention_bias: false,
  clip_qkv: null,
  eos_token_id: 50279,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 1024,
  max_position_embeddings: 4096,
  model_type: 'olmoe',
  norm_topk_prob: false,
  num_attention_heads: 16,
  num_experts: 64,
  num_experts_per_tok: 8,
  num_hidden_layers: 16,
  num_key_value_heads: 16,
  pad_token_id: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 10000.0,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  vocab_size: 50304,
};

function parse(context: TestContext, config: unknown, generation?: unknown): ReturnType<typeof parseModelConfig> {
  const directory = temporaryDirectory(context);
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  if (generation !== undefined) writeFileSync(join(directory, 'generation_config.json'), JSON.stringify(generation));
  return parseModelConfig(directory);
}

const expectedQwen3: ModelConfig = {
  family: 'qwen3_moe',
  layers: 48,
  hiddenSize: 2048,
  vocabularySize: 151936,
  heads: 32,
  keyValueHeads: 4,
  headDimension: 128,
  experts: 128,
  topK: 8,
  expertWidth: 768,
  normalizeTopK: true,
  ropeTheta: 1e6,
  rmsEpsilon: 1e-6,
  queryKeyNorm: 'head',
  clipQueryKeyValue: undefined,
  slidingWindow: undefined,
  tieEmbeddings: false,
  maximumPositions: 40960,
  beginTokenId: 151643,
  endTokenIds: [151645],
};

test('qwen3_moe as transformers 4 writes it', (context) => {
  const { config, names } = parse(context, qwen3);
  assert.deepEqual(config, expectedQwen3);
  const layer = names.layer(3);
  assert.equal(names.output, 'lm_head.weight');
  assert.equal(layer.queryNorm, 'model.layers.3.self_attn.q_norm.weight');
  assert.equal(layer.router, 'model.layers.3.mlp.gate.weight');
  assert.equal(layer.expert(7).down, 'model.layers.3.mlp.experts.7.down_proj.weight');
});

test('qwen3_moe as transformers 5 writes it', (context) => {
  const { rope_theta: theta, torch_dtype: dtype, num_experts: experts, rope_scaling: _scaling, ...rest } = qwen3;
  const version5 = {
    ...rest,
    dtype,
    num_local_experts: experts,
    rope_parameters: { rope_theta: theta, rope_type: 'default' },
  };
  assert.deepEqual(parse(context, version5).config, expectedQwen3);
});

test('mixtral: head_dim left out, weights always normalised, w1 w3 w2', (context) => {
  const { config, names } = parse(context, { ...mixtral, sliding_window: 4096 });
  assert.equal(config.headDimension, 128);
  assert.equal(config.normalizeTopK, true);
  assert.equal(config.queryKeyNorm, 'none');
  assert.equal(config.slidingWindow, 4096);
  assert.equal(config.expertWidth, 14336);
  const layer = names.layer(0);
  assert.equal(layer.queryNorm, undefined);
  assert.equal(layer.router, 'model.layers.0.block_sparse_moe.gate.weight');
  const expert = 'model.layers.0.block_sparse_moe.experts.1';
  assert.deepEqual(layer.expert(1), {
    gate: `${expert}.w1.weight`,
    up: `${expert}.w3.weight`,
    down: `${expert}.w2.weight`,
  });
});

test('olmoe: norm over the whole projection, clipping', (context) => {
  const plain = parse(context, olmoe).config;
  assert.equal(plain.queryKeyNorm, 'full');
  assert.equal(plain.clipQueryKeyValue, undefined);
  assert.equal(plain.normalizeTopK, false);
  assert.equal(plain.beginTokenId, undefined);
  assert.equal(parse(context, { ...olmoe, clip_qkv: 8 }).config.clipQueryKeyValue, 8);
});

test('defaults of transformers for fields left out', (context) => {
  for (const [source, theta, epsilon] of [
    [qwen3, 1e4, 1e-6],
    [mixtral, 1e6, 1e-5],
    [olmoe, 1e4, 1e-5],
  ] as const) {
    const {
      rope_theta: _theta,
      rms_norm_eps: _epsilon,
      num_key_value_heads: _heads,
      tie_word_embeddings: _tie,
      ...rest
    } = source;
    const { config } = parse(context, { ...rest, num_key_value_heads: null });
    assert.equal(config.ropeTheta, theta);
    assert.equal(config.rmsEpsilon, epsilon);
    assert.equal(config.keyValueHeads, config.heads);
    assert.equal(config.tieEmbeddings, false);
  }
});

test('tied output shares the embedding', (context) => {
  const { names } = parse(context, { ...qwen3, tie_word_embeddings: true });
  assert.equal(names.output, names.embedding);
});

test('end tokens of config.json and generation_config.json together', (context) => {
  const generation = { eos_token_id: [151645, 151643], bos_token_id: 5 };
  assert.deepEqual(parse(context, qwen3, generation).config.endTokenIds, [151643, 151645]);
  const { eos_token_id: _end, ...endless } = olmoe;
  assert.deepEqual(parse(context, endless).config.endTokenIds, []);
  const { config } = parse(context, endless, generation);
  assert.deepEqual(config.endTokenIds, [151643, 151645]);
  assert.equal(config.beginTokenId, 5);
});

test('model_type is enough where architectures is missing', (context) => {
  const { architectures: _architectures, ...rest } = mixtral;
  assert.equal(parse(context, rest).config.family, 'mixtral');
});

test('other architectures are refused, naming those supported', (context) => {
  for (const config of [{ ...qwen3, architectures: ['LlamaForCausalLM'] }, { model_type: 'llama' }, {}]) {
    assert.throws(
      () => parse(context, config),
      (error: unknown) => {
        smoeError('MODEL_UNSUPPORTED', 'config.json')(error);
        assert.match((error as { hint: string }).hint, /Qwen3MoeForCausalLM.*MixtralForCausalLM.*OlmoeForCausalLM/);
        return true;
      },
    );
  }
});

const unsupported: [string, object][] = [
  ['yarn', { ...qwen3, rope_scaling: { rope_type: 'yarn', factor: 4 } }],
  ['linear', { ...mixtral, rope_scaling: { type: 'linear', factor: 2 } }],
  ['llama3', { ...olmoe, rope_parameters: { rope_type: 'llama3', rope_theta: 1e4 } }],
  ['decoder_sparse_step 2', { ...qwen3, decoder_sparse_step: 2 }],
  ['mlp_only_layers', { ...qwen3, mlp_only_layers: [0] }],
  ['use_sliding_window', { ...qwen3, use_sliding_window: true, sliding_window: 4096 }],
  ['hidden_act "gelu"', { ...mixtral, hidden_act: 'gelu' }],
  ['attention_bias', { ...olmoe, attention_bias: true }],
  ['quantization_config', { ...qwen3, quantization_config: { quant_method: 'fp8' } }],
  ['head_dim 64', { ...olmoe, head_dim: 64 }],
];
for (const [feature, config] of unsupported) {
  test(`refused by name: ${feature}`, (context) => {
    assert.throws(() => parse(context, config), smoeError('MODEL_UNSUPPORTED', 'config.json', feature));
  });
}

const invalid: [string, unknown][] = [
  ['num_hidden_layers', { ...qwen3, num_hidden_layers: 0 }],
  ['hidden_size', { ...qwen3, hidden_size: '2048' }],
  ['vocab_size', { ...mixtral, vocab_size: null }],
  ['moe_intermediate_size', { ...qwen3, moe_intermediate_size: 1.5 }],
  ['intermediate_size', { ...olmoe, intermediate_size: 1e12 }],
  ['rms_norm_eps', { ...olmoe, rms_norm_eps: 0 }],
  ['key-value heads', { ...mixtral, num_key_value_heads: 5 }],
  ['head dimension', { ...mixtral, num_attention_heads: 24 }],
  ['num_experts_per_tok 9', { ...mixtral, num_experts_per_tok: 9 }],
  ['num_local_experts', { ...mixtral, num_local_experts: undefined }],
  ['eos_token_id', { ...mixtral, eos_token_id: -1 }],
  ['rope_type', { ...mixtral, rope_parameters: { rope_type: 3 } }],
  ['not a JSON object', []],
];
for (const [field, config] of invalid) {
  test(`invalid: ${field}`, (context) => {
    assert.throws(() => parse(context, config), smoeError('MODEL_CONFIG_INVALID', 'config.json', field));
  });
}

test('what transformers 5 saved is read as it was meant', () => {
  const { config } = parseModelConfig(tinyDirectory('qwen3_moe'));
  assert.deepEqual(
    [config.experts, config.topK, config.headDimension, config.tieEmbeddings, config.ropeTheta],
    [16, 4, 16, true, 1e6],
  );
  assert.equal(parseModelConfig(tinyDirectory('mixtral')).config.slidingWindow, 8);
  assert.equal(parseModelConfig(tinyDirectory('olmoe')).config.clipQueryKeyValue, 1.5);
});
