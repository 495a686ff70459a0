import { parse, stringify } from 'yaml';
import { byRank, integerRows, invalidExport } from './check-slots.ts';
import { hasCopies, redundantExperts, slotsOfLayer } from './expert-slots.ts';
import { checkpointFormat, type EngineExporter } from './exporter.ts';

/**
 * TensorRT-LLM's load balancer YAML (llmapi/llm_args.py, MoeLoadBalancerConfig): `num_slots`, `initial_global_assignments` by model
 * layer, `layer_updates_per_iter` 0 for a placement that stays. Every layer with experts must be there.
 */
export const trtllm: EngineExporter = {
  name: 'trtllm',
  title: 'TensorRT-LLM',
  version: '1.2.1',
  extension: '.yaml',
  formats: ['load-balancer'],
  backends: [
    { name: 'WIDEEP', sends: 'rank' },
    { name: 'TRTLLM', sends: 'unknown' },
    { name: 'CUTEDSL', sends: 'unknown' },
    { name: 'CUTLASS', sends: 'unknown' },
    { name: 'allgather', sends: 'everything' },
  ],
  attention: ['dp'],
  render({ slots, model }) {
    const lines = model.moeLayers.map((layer, index) => `  ${layer}: [${slotsOfLayer(slots, index).join(', ')}]`);
    return `num_slots: ${slots.ranks * slots.slotsPerRank}\ninitial_global_assignments:\n${lines.join('\n')}\nlayer_updates_per_iter: 0\n`;
  },
  start({ plan, slots, backend, attention, file, modelName, format }) {
    const copies = hasCopies(plan) || slots.padding > 0;
    const options = {
      enable_attention_dp: attention === 'dp',
      moe_config: {
        ...(backend.sends === 'everything' ? {} : { backend: backend.name }),
        ...(format === checkpointFormat ? {} : { load_balancer: file }),
      },
    };
    return {
      companions: [{ suffix: '.options.yaml', text: stringify(options) }],
      launch: [
        ...['trtllm-serve', modelName, '--tp_size', String(slots.ranks), '--ep_size', String(slots.ranks)],
        ...['--extra_llm_api_options', `${file}.options.yaml`],
      ],
      promiseHolds: !copies,
      notes: [
        ...(copies
          ? [
              `TensorRT-LLM spreads tokens over the copies of an expert, wherever they are; ${redundantExperts(slots)} copies balance load but do not serve tokens at home first`,
            ]
          : []),
      ],
    };
  },
  read(where, text, { model, ranks }) {
    let yaml: unknown;
    try {
      yaml = parse(text, { maxAliasCount: 0 });
    } catch (error) {
      throw invalidExport(where, `not YAML: ${(error as Error).message}`);
    }
    const fields = typeof yaml === 'object' && yaml !== null ? (yaml as Record<string, unknown>) : {};
    const {
      num_slots: slots,
      initial_global_assignments: assignments,
      layer_updates_per_iter: updates,
      ...other
    } = fields;
    const unknown = Object.keys(other);
    if (unknown.length > 0) throw invalidExport(where, `unknown field ${unknown.join(', ')}`);
    if (!Number.isInteger(slots) || (slots as number) < model.experts || (slots as number) % ranks !== 0) {
      throw invalidExport(
        where,
        `num_slots ${String(slots)} is not a multiple of ${ranks} ranks from ${model.experts} on`,
      );
    }
    if (updates !== 0)
      throw invalidExport(where, `layer_updates_per_iter ${String(updates)}: only 0 keeps the placement`);
    const byLayer =
      typeof assignments === 'object' && assignments !== null ? (assignments as Record<string, unknown>) : {};
    const missing = model.moeLayers.find((layer) => !Object.hasOwn(byLayer, String(layer)));
    if (missing !== undefined) throw invalidExport(where, `initial_global_assignments lacks layer ${missing}`);
    const extra = Object.keys(byLayer).find((layer) => !model.moeLayers.includes(Number(layer)));
    if (extra !== undefined) throw invalidExport(where, `initial_global_assignments: layer ${extra} has no experts`);
    const rows = integerRows(
      where,
      'initial_global_assignments',
      model.moeLayers.map((layer) => byLayer[String(layer)]),
    );
    rows.forEach((row, index) => {
      if (row.length !== slots)
        throw invalidExport(
          where,
          `layer ${model.moeLayers[index]}: ${row.length} slots, num_slots is ${String(slots)}`,
        );
    });
    return { ranks, experts: model.experts, layers: rows.map((row) => byRank(row, ranks)) };
  },
};
