import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { readExportModel } from '../../src/export/export-model.ts';

describe('models to export for', () => {
  const directory = mkdtempSync(join(tmpdir(), 'smoe-model-'));
  after(() => rmSync(directory, { recursive: true }));
  const read = (config: object, dense?: number[]): ReturnType<typeof readExportModel> => {
    writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
    return readExportModel(directory, dense);
  };
  const deepseek = { num_hidden_layers: 6, n_routed_experts: 64, num_experts_per_tok: 6, n_group: 8 };

  const layouts: [string, object, number[]][] = [
    ['no dense layer', { num_hidden_layers: 3, num_experts: 8 }, [0, 1, 2]],
    ['first_k_dense_replace', { ...deepseek, first_k_dense_replace: 2, moe_layer_freq: 1 }, [2, 3, 4, 5]],
    ['moe_layer_freq', { ...deepseek, first_k_dense_replace: 1, moe_layer_freq: 2 }, [2, 4]],
    ['moe_layer_freq as a list', { ...deepseek, moe_layer_freq: [0, 1, 1, 0, 1, 1] }, [1, 2, 4, 5]],
    ['decoder_sparse_step', { num_hidden_layers: 4, num_experts: 8, decoder_sparse_step: 2 }, [1, 3]],
    ['mlp_only_layers', { num_hidden_layers: 4, num_experts: 8, mlp_only_layers: [0, 2] }, [1, 3]],
    [
      'mlp_layer_types',
      { num_hidden_layers: 3, num_experts: 8, mlp_layer_types: ['dense', 'sparse', 'sparse'] },
      [1, 2],
    ],
    ['moe_layers_enum', { num_hidden_layers: 4, moe_num_experts: 8, moe_layers_enum: '1,3' }, [1, 3]],
    ['a text model inside', { text_config: { num_hidden_layers: 2, num_local_experts: 8 } }, [0, 1]],
  ];
  for (const [name, config, expected] of layouts) {
    it(`know the MoE layers by ${name}`, () => assert.deepEqual(read(config).moeLayers, expected));
  }

  it('know the rest', () => {
    const { modelLayers, experts, topK, groups, architecture } = read({
      ...deepseek,
      architectures: ['DeepseekV2ForCausalLM'],
    });
    assert.deepEqual(
      { modelLayers, experts, topK, groups, architecture },
      { modelLayers: 6, experts: 64, topK: 6, groups: 8, architecture: 'DeepseekV2ForCausalLM' },
    );
    assert.deepEqual(read(deepseek, [0, 5]).moeLayers, [1, 2, 3, 4]);
  });

  it('are refused without what is needed', () => {
    assert.throws(() => read({ num_experts: 4 }), {
      code: 'EXPORT_CONFIG',
      message: /num_hidden_layers is not a number/,
    });
    assert.throws(() => read({ num_hidden_layers: 4 }), { code: 'EXPORT_CONFIG', message: /num_experts or / });
    assert.throws(() => read(deepseek, [6]), { code: 'EXPORT_CONFIG', message: /there is no layer 6 of 6/ });
    assert.throws(() => readExportModel(join(directory, 'absent')), { code: 'EXPORT_CONFIG', message: /no such file/ });
  });
});
