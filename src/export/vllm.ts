import { byRank, integerRows, invalidExport, parseExportJson, type ReadPlacement } from './check-slots.ts';
import { hasCopies, redundantExperts, slotsOfLayer } from './expert-slots.ts';
import {
  checkpointFormat,
  type EngineExporter,
  type ExpectedFile,
  type ExportRequest,
  infeasible,
  refuseUnequal,
} from './exporter.ts';

/** One form of placement file that vLLM, or a fork or a proposed change of it, reads. */
interface VllmFormat {
  name: string;
  render(request: ExportRequest): string;
  flags(file: string, redundant: number): string[];
  note: string;
  read(where: string, text: string, expected: ExpectedFile): ReadPlacement;
}

/** Pull request 49572: `eplb_config.initial_expert_map_path`, JSON [MoE layers][slots]. */
const initialExpertMap: VllmFormat = {
  name: 'initial-expert-map',
  render({ slots }) {
    const rows = Array.from({ length: slots.layers }, (_, layer) => JSON.stringify(slotsOfLayer(slots, layer)));
    return `[\n${rows.join(',\n')}\n]\n`;
  },
  flags: (file, redundant) => [
    ...['--enable-eplb', '--eplb-config'],
    // The balancer must not replace the placement: its first turn comes after two billion steps.
    JSON.stringify({ initial_expert_map_path: file, num_redundant_experts: redundant, step_interval: 2 ** 31 - 1 }),
  ],
  note: 'no release of vLLM reads a placement from a file, 0.33.0 neither: this one needs pull request 49572; with any release use --format checkpoint instead',
  read(where, text, { model, ranks }) {
    const rows = integerRows(where, 'the map', parseExportJson(where, text));
    if (rows.length !== model.moeLayers.length)
      throw invalidExport(where, `${rows.length} layers, the model has ${model.moeLayers.length} with experts`);
    rows.forEach((row, index) => {
      if (row.length % ranks !== 0)
        throw invalidExport(
          where,
          `layer ${model.moeLayers[index]}: ${row.length} slots do not divide over ${ranks} ranks`,
        );
      if (row.length !== rows[0]!.length)
        throw invalidExport(
          where,
          `layer ${model.moeLayers[index]}: ${row.length} slots, ${rows[0]!.length} in the first`,
        );
    });
    return { ranks, experts: model.experts, layers: rows.map((row) => byRank(row, ranks)) };
  },
};

/** vllm-ascend, `eplb_config.expert_map_path` (vllm_ascend/eplb/core/eplb_utils.py): MoE layers only, device by device. */
const ascend: VllmFormat = {
  name: 'ascend',
  render({ slots }) {
    const layers = Array.from({ length: slots.layers }, (_, layer) =>
      JSON.stringify({
        layer_id: layer,
        device_count: slots.ranks,
        device_list: byRank(slotsOfLayer(slots, layer), slots.ranks).map((experts, device) => ({
          device_id: device,
          device_expert: experts,
        })),
      }),
    );
    return `{"moe_layer_count": ${slots.layers}, "layer_list": [\n${layers.join(',\n')}\n]}\n`;
  },
  flags: (file) => ['--additional-config', JSON.stringify({ eplb_config: { expert_map_path: file } })],
  note: 'read by vllm-ascend 0.23.0 (Ascend NPUs), not by vLLM itself',
  read(where, text, { model, ranks }) {
    const json = parseExportJson(where, text) as { moe_layer_count?: unknown; layer_list?: unknown } | null;
    const list: unknown[] = Array.isArray(json?.layer_list) ? json.layer_list : [];
    if (json?.moe_layer_count !== model.moeLayers.length || list.length !== model.moeLayers.length) {
      throw invalidExport(
        where,
        `moe_layer_count ${String(json?.moe_layer_count)} with ${list.length} layers, the model has ${model.moeLayers.length} with experts`,
      );
    }
    const layers = list.map((layer, index) => {
      const devices = (layer as { device_list?: unknown } | null)?.device_list;
      return integerRows(
        where,
        `layer_list[${index}].device_list`,
        Array.isArray(devices)
          ? devices.map((device: unknown) => (device as { device_expert?: unknown } | null)?.device_expert)
          : devices,
      );
    });
    return { ranks, experts: model.experts, layers };
  },
};

/** Pull request 34811: `--expert-placement-file`, `{"expert_to_ep_rank": [rank of each expert]}`, one list for all layers. */
const expertToRank: VllmFormat = {
  name: 'expert-to-rank',
  render(request) {
    const { plan } = request;
    refuseUnequal('vLLM with expert_to_ep_rank', request);
    const owners = plan.expertOwner.subarray(0, plan.experts);
    const differs = plan.expertOwner.findIndex((owner, at) => owner !== owners[at % plan.experts]);
    if (differs >= 0) {
      throw infeasible(
        `expert_to_ep_rank is one list for all layers, and MoE layer ${Math.floor(differs / plan.experts)} of the plan differs from the first`,
        'use --format initial-expert-map, or --format checkpoint',
      );
    }
    return `${JSON.stringify({ expert_to_ep_rank: [...owners] })}\n`;
  },
  flags: (file) => ['--expert-placement-strategy', 'custom', '--expert-placement-file', file],
  note: 'needs vLLM with pull request 34811, which is in no release',
  read(where, text, { model, ranks }) {
    const json = parseExportJson(where, text) as { expert_to_ep_rank?: unknown } | null;
    const [owners] = integerRows(where, 'expert_to_ep_rank', [json?.expert_to_ep_rank]);
    if (owners!.length !== model.experts)
      throw invalidExport(where, `${owners!.length} experts, the model has ${model.experts}`);
    const wrong = owners!.findIndex((rank) => rank < 0 || rank >= ranks);
    if (wrong >= 0) throw invalidExport(where, `expert ${wrong} is on rank ${owners![wrong]} of ${ranks}`);
    const onRanks = Array.from({ length: ranks }, (_, rank) =>
      Array.from(owners!.keys()).filter((expert) => owners![expert] === rank),
    );
    return { ranks, experts: model.experts, layers: model.moeLayers.map(() => onRanks) };
  },
};

const formats: readonly VllmFormat[] = [initialExpertMap, ascend, expertToRank];

function formatNamed(name: string): VllmFormat {
  return formats.find((format) => format.name === name)!;
}

export const vllm: EngineExporter = {
  name: 'vllm',
  title: 'vLLM',
  version: '0.33.0',
  extension: '.json',
  formats: formats.map(({ name }) => name),
  backends: [
    { name: 'deepep_high_throughput', sends: 'rank' },
    { name: 'deepep_low_latency', sends: 'expert' },
    { name: 'deepep_v2', sends: 'unknown' },
    { name: 'nixl_ep', sends: 'expert' },
    { name: 'mori_high_throughput', sends: 'unknown' },
    { name: 'mori_low_latency', sends: 'unknown' },
    { name: 'flashinfer_nvlink_one_sided', sends: 'unknown' },
    { name: 'flashinfer_nvlink_two_sided', sends: 'unknown' },
    { name: 'allgather_reducescatter', sends: 'everything' },
  ],
  attention: ['dp'],
  render: (request) => formatNamed(request.format).render(request),
  start({ plan, slots, backend, modelName, attention, format, file }) {
    const form = format === checkpointFormat ? undefined : formatNamed(format);
    const copies = hasCopies(plan) || slots.padding > 0;
    return {
      companions: [],
      launch: [
        ...['vllm', 'serve', modelName],
        ...[attention === 'dp' ? '--data-parallel-size' : '--tensor-parallel-size', String(slots.ranks)],
        '--enable-expert-parallel',
        ...(form === ascend ? [] : ['--all2all-backend', backend.name]),
        ...(form?.flags(file, redundantExperts(slots)) ?? []),
      ],
      promiseHolds: !copies,
      notes: [
        ...(form === undefined ? [] : [form.note]),
        ...(copies ? ['vLLM does not serve an expert from its copy at home first: copies balance load only'] : []),
      ],
    };
  },
  read: (where, text, expected) => formatNamed(expected.format).read(where, text, expected),
};
