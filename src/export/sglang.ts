import { byRank, integerRows, invalidExport, parseExportJson } from './check-slots.ts';
import { contiguousSlots, hasCopies, redundantExperts, slotsOfLayer } from './expert-slots.ts';
import { checkpointFormat, type EngineExporter, infeasible } from './exporter.ts';

const version = '0.5.17';

/** Model classes of that release with experts that do not take expert locations: the file would be passed over in silence. */
const withoutLocations = new Set([
  'AfmoeForCausalLM',
  'Cohere2MoeForCausalLM',
  'DbrxForCausalLM',
  'Ernie4_5_MoeForCausalLM',
  'Ernie4_5_VLMoeForConditionalGeneration',
  'Glm4vMoeForConditionalGeneration',
  'GraniteMoeForCausalLM',
  'GraniteMoeHybridForCausalLM',
  'Grok1ForCausalLM',
  'HunYuanMoEV1ForCausalLM',
  'Lfm2MoeForCausalLM',
  'Llama4ForCausalLM',
  'Llama4ForConditionalGeneration',
  'MixtralForCausalLM',
  'OlmoeForCausalLM',
  'PhiMoEForCausalLM',
  'QuantMixtralForCausalLM',
  'Qwen3OmniMoeForConditionalGeneration',
  'XverseMoeForCausalLM',
]);

/**
 * Classes that pass the router's experts through the dispatch table with every back end. The others do with DeepEP alone
 * (srt/models/qwen3_moe.py, forward_normal), though their weights are placed by the file all the same: another back end computes with
 * wrong experts.
 */
const translatedAlways = new Set(['DeepseekV2ForCausalLM', 'DeepseekV3ForCausalLM', 'DeepseekV32ForCausalLM']);

/**
 * SGLang's `--init-expert-location` JSON (srt/eplb/expert_location.py): `physical_to_logical_map` [model layers][slots] and no other
 * key, rows for dense layers too. Slot p is on rank p // (slots / ep_size). SGLang itself checks neither coverage nor copies.
 */
export const sglang: EngineExporter = {
  name: 'sglang',
  title: 'SGLang',
  version,
  extension: '.json',
  formats: ['init-expert-location'],
  backends: [
    { name: 'deepep', sends: 'rank' },
    { name: 'mooncake', sends: 'expert' },
    { name: 'nixl', sends: 'expert' },
    { name: 'mori', sends: 'unknown' },
    { name: 'pplx', sends: 'expert' },
    { name: 'flashinfer', sends: 'unknown' },
    { name: 'none', sends: 'everything' },
  ],
  attention: ['tp', 'dp'],
  render({ slots, model, backend }) {
    if (model.architecture !== undefined && withoutLocations.has(model.architecture)) {
      throw infeasible(
        `SGLang ${version} takes no expert locations for ${model.architecture}`,
        'renumber the experts in the checkpoint instead: --format checkpoint',
      );
    }
    if (backend.name !== 'deepep' && !translatedAlways.has(model.architecture ?? '')) {
      throw infeasible(
        `SGLang ${version} with ${backend.name} moves the experts of ${model.architecture ?? 'this model class'} and routes as if it had not: its output would be wrong`,
        'use --backend deepep, or renumber the experts in the checkpoint: --format checkpoint',
      );
    }
    const dense = contiguousSlots(slots);
    const rows = Array.from({ length: model.modelLayers }, (_, layer) => {
      const index = model.moeLayers.indexOf(layer);
      return JSON.stringify(index < 0 ? dense : slotsOfLayer(slots, index));
    });
    return `{"physical_to_logical_map": [\n${rows.join(',\n')}\n]}\n`;
  },
  start({ plan, slots, backend, attention, file, modelName, format }) {
    const redundant = redundantExperts(slots);
    const copies = hasCopies(plan) || slots.padding > 0;
    const placed = format !== checkpointFormat;
    // Without an exchange every rank has to choose alike, so SGLang refuses the table that differs by rank.
    const choice = backend.name === 'none' ? 'dynamic' : 'static';
    return {
      companions: [],
      launch: [
        ...['python3', '-m', 'sglang.launch_server', '--model-path', modelName],
        ...['--tp-size', String(slots.ranks), '--ep-size', String(slots.ranks)],
        ...(attention === 'dp' ? ['--dp-size', String(slots.ranks), '--enable-dp-attention'] : []),
        ...['--moe-a2a-backend', backend.name],
        ...(placed ? ['--init-expert-location', file, '--ep-dispatch-algorithm', choice] : []),
        ...(redundant > 0 ? ['--ep-num-redundant-experts', String(redundant)] : []),
      ],
      promiseHolds: !copies,
      // Its table is made for a static choice, which needs an exchange; --format checkpoint never has copies.
      ...(copies && choice === 'static'
        ? { promiseNeeds: 'smoe_sglang with SMOE_SGLANG_OWNER_FIRST=1, its default' }
        : {}),
      notes: [
        'leave --enable-eplb off: it would replace this placement',
        ...(backend.name === 'deepep'
          ? ['DeepEP sends one row per rank in normal mode (prefill), one per expert in low-latency mode (decode)']
          : []),
        ...(copies
          ? [
              'SGLang serves an expert from its copy at home where there is one, else (on several hosts) from one on the same host, else from any at random, not from the owner: rows of one owner may be split',
              ...(choice === 'static'
                ? [
                    'the plug-in smoe_sglang (docs/sglang.md) makes that the owner, SMOE_SGLANG_OWNER_FIRST=1: the promise holds with it',
                  ]
                : []),
            ]
          : []),
      ],
    };
  },
  read(where, text, { model, ranks }) {
    const json = parseExportJson(where, text);
    const keys = typeof json === 'object' && json !== null ? Object.keys(json) : [];
    if (keys.length !== 1 || keys[0] !== 'physical_to_logical_map') {
      throw invalidExport(where, `expected the one key physical_to_logical_map, found ${keys.join(', ') || 'none'}`);
    }
    const rows = integerRows(where, keys[0], (json as Record<string, unknown>)[keys[0]]);
    if (rows.length !== model.modelLayers)
      throw invalidExport(where, `${rows.length} layers, the model has ${model.modelLayers}, dense ones too`);
    const slots = rows[0]!.length;
    rows.forEach((row, layer) => {
      if (row.length !== slots) throw invalidExport(where, `layer ${layer}: ${row.length} slots, ${slots} in layer 0`);
      const wrong = row.find((expert) => expert < 0 || expert >= model.experts);
      if (wrong !== undefined) throw invalidExport(where, `layer ${layer}: expert ${wrong} of ${model.experts}`);
    });
    if (slots % ranks !== 0) throw invalidExport(where, `${slots} slots do not divide over ${ranks} ranks`);
    return { ranks, experts: model.experts, layers: model.moeLayers.map((layer) => byRank(rows[layer]!, ranks)) };
  },
};
