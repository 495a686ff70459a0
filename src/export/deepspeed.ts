import { byRank, integerRows, invalidExport, parseExportJson } from './check-slots.ts';
import { slotsOfLayer } from './expert-slots.ts';
import { checkpointFormat, type EngineExporter, refuseUnequal } from './exporter.ts';

const format = 'speculative-moe-deepspeed';

/**
 * DeepSpeed knows no placement: expert e is on rank e // (experts / ep_size) everywhere (module_inject/auto_ep_layer.py). So the
 * file says in which order to number the experts: position p takes expert `expert_of_position[layer][p]`, router rows alike, or
 * ids mapped after top-k where routing is limited to groups. `smoe_deepspeed` (integrations/deepspeed) applies it.
 */
export const deepspeed: EngineExporter = {
  name: 'deepspeed',
  title: 'DeepSpeed',
  version: '0.19.8',
  extension: '.json',
  formats: ['expert-order'],
  backends: [
    { name: 'autoep', sends: 'expert' },
    { name: 'legacy', sends: 'everything' },
  ],
  attention: ['tp', 'dp'],
  render(request) {
    const { slots, model } = request;
    refuseUnequal('DeepSpeed', request);
    const rows = model.moeLayers.map((_, index) => JSON.stringify(slotsOfLayer(slots, index)));
    const facts = {
      format,
      version: 1,
      ep_size: slots.ranks,
      num_experts: slots.experts,
      model_layers: model.moeLayers,
      router: model.groups > 1 ? 'map-after-topk' : 'permute-rows',
    };
    return `${JSON.stringify(facts).slice(0, -1)},"expert_of_position":[\n${rows.join(',\n')}\n]}\n`;
  },
  start({ slots, format: form }) {
    return {
      companions: [],
      launch: ['deepspeed', '--num_gpus', String(slots.ranks), 'YOUR_SCRIPT.py'],
      promiseHolds: true,
      notes: [
        ...(form === checkpointFormat
          ? []
          : [
              'apply it with the Python package of integrations/deepspeed (docs/deepspeed.md), or start from --format checkpoint',
            ]),
        'AutoEP sends one row per expert; the plug-in sends one per rank',
      ],
    };
  },
  read(where, text, { model, ranks }) {
    const json = parseExportJson(where, text);
    const fields = typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : {};
    const expected = { format, version: 1, ep_size: ranks, num_experts: model.experts };
    for (const [name, value] of Object.entries(expected)) {
      if (fields[name] !== value)
        throw invalidExport(where, `${name} is ${JSON.stringify(fields[name]) ?? 'absent'}, expected ${value}`);
    }
    if (JSON.stringify(fields.model_layers) !== JSON.stringify(model.moeLayers))
      throw invalidExport(where, 'model_layers are not the layers with experts of the model');
    const rows = integerRows(where, 'expert_of_position', fields.expert_of_position);
    if (rows.length !== model.moeLayers.length)
      throw invalidExport(where, `${rows.length} layers, the model has ${model.moeLayers.length} with experts`);
    rows.forEach((row, index) => {
      if (row.length !== model.experts)
        throw invalidExport(
          where,
          `layer ${model.moeLayers[index]}: ${row.length} positions for ${model.experts} experts`,
        );
    });
    if (model.experts % ranks !== 0)
      throw invalidExport(where, `${model.experts} experts do not divide over ${ranks} ranks`);
    return { ranks, experts: model.experts, layers: rows.map((row) => byRank(row, ranks)) };
  },
};
