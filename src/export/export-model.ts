import { statSync } from 'node:fs';
import { join } from 'node:path';
import { SmoeError } from '../errors.ts';
import { readJsonFile } from '../model/json-file.ts';

/** What an engine's file needs to know of a model, of whatever family, from its config.json. */
export interface ExportModel {
  /** config.json's path. */
  path: string;
  architecture: string | undefined;
  /** Decoder layers, dense ones too. */
  modelLayers: number;
  /** Which of them have experts, ascending. */
  moeLayers: number[];
  experts: number;
  topK: number | undefined;
  /** Groups of experts that routing is limited to; 1 without. */
  groups: number;
}

type Config = Record<string, unknown>;

const mostLayers = 4096;
const mostExperts = 65_536;

/** @param denseLayers layers without experts, where config.json does not say it in a way known here */
export function readExportModel(path: string, denseLayers?: number[]): ExportModel {
  const file = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true ? join(path, 'config.json') : path;
  const outer = readJsonFile(file);
  if (typeof outer !== 'object' || outer === null || Array.isArray(outer)) {
    throw configError(file, outer === undefined ? 'no such file' : 'not a JSON object');
  }
  const inner = (outer as Config).text_config ?? (outer as Config).llm_config;
  const config: Config = { ...outer, ...(typeof inner === 'object' ? inner : undefined) };
  const modelLayers = size(file, config, ['num_hidden_layers'], mostLayers);
  const experts = size(
    file,
    config,
    ['num_experts', 'n_routed_experts', 'num_local_experts', 'moe_num_experts'],
    mostExperts,
  );
  const architectures = (outer as Config).architectures;
  const architecture: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  return {
    path: file,
    architecture: typeof architecture === 'string' ? architecture : undefined,
    modelLayers,
    moeLayers: moeLayersOf(file, config, modelLayers, denseLayers),
    experts,
    topK: ['num_experts_per_tok', 'num_experts_per_token', 'experts_per_token', 'moe_topk', 'moe_k', 'moe_top_k']
      .map((name) => config[name])
      .find((value): value is number => Number.isInteger(value)),
    groups: integer(config.n_group) ?? integer(config.num_expert_group) ?? 1,
  };
}

/**
 * Layers with experts, by the fields with which transformers' and the engines' own model files decide it: `mlp_layer_types`,
 * `moe_layer_freq` (a list, or every n-th layer), `first_k_dense_replace`, `moe_layers_enum`, `moe_layers`, `mlp_only_layers`,
 * `decoder_sparse_step`, `moe_layer_start_index` and its kin, `interleave_moe_layer_step`.
 */
function moeLayersOf(file: string, config: Config, modelLayers: number, dense: number[] | undefined): number[] {
  const all = Array.from({ length: modelLayers }, (_, layer) => layer);
  if (dense !== undefined) {
    const beyond = dense.find((layer) => layer >= modelLayers);
    if (beyond !== undefined) throw configError(file, `--dense-layers: there is no layer ${beyond} of ${modelLayers}`);
    return all.filter((layer) => !dense.includes(layer));
  }
  const { mlp_layer_types: types, moe_layer_freq: frequency, moe_layers_enum: listed, moe_layers: layers } = config;
  if (Array.isArray(types)) return all.filter((layer) => types[layer] === 'sparse');
  if (Array.isArray(frequency)) return all.filter((layer) => Boolean(frequency[layer]));
  if (typeof listed === 'string') return all.filter((layer) => listed.split(',').map(Number).includes(layer));
  if (Array.isArray(layers)) return all.filter((layer) => layers.includes(layer));
  const only = Array.isArray(config.mlp_only_layers) ? (config.mlp_only_layers as unknown[]) : [];
  const firstDense = integer(config.first_k_dense_replace) ?? integer(config.num_dense_layers) ?? 0;
  const every = integer(frequency) ?? 1;
  const step = integer(config.decoder_sparse_step) ?? integer(config.interleave_moe_layer_step) ?? 1;
  const start = integer(config.moe_layer_start_index) ?? 0;
  const end = integer(config.moe_layer_end_index) ?? modelLayers - 1;
  const interval = integer(config.moe_layer_interval) ?? 1;
  return all.filter(
    (layer) =>
      layer >= firstDense &&
      layer % every === 0 &&
      !only.includes(layer) &&
      (layer + 1) % step === 0 &&
      layer >= start &&
      layer <= (end < 0 ? modelLayers + end : end) &&
      (layer + 1) % interval === 0,
  );
}

function size(file: string, config: Config, names: string[], most: number): number {
  const value = names.map((name) => config[name]).find((candidate) => candidate !== undefined && candidate !== null);
  if (Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most) return value as number;
  throw configError(file, `${names.join(' or ')} is not a number from 1 to ${most}`);
}

function integer(value: unknown): number | undefined {
  return Number.isInteger(value) && (value as number) !== 0 ? (value as number) : undefined;
}

function configError(file: string, problem: string): SmoeError {
  return new SmoeError('EXPORT_CONFIG', `${file}: ${problem}`, {
    hint: 'name the directory or config.json of the model the plan is for with --model',
  });
}
