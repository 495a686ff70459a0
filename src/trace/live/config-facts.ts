import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { SmoeError } from '../../errors.ts';
import type { KnownModel } from '../trace-sink.ts';

/** The names under which config.json files give these facts, the most common first. */
const names = {
  experts: ['num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts'],
  topK: ['num_experts_per_tok', 'num_experts_per_token', 'experts_per_token', 'moe_topk', 'moe_k'],
  vocabularySize: ['vocab_size'],
} as const;

/**
 * Experts, top-k and vocabulary from a model's config.json (the file or its directory), of whatever family; what it does not say
 * stays undefined.
 */
export function readConfigFacts(path: string): Pick<KnownModel, 'experts' | 'topK' | 'vocabularySize'> {
  let config: Record<string, unknown>;
  try {
    const file = statSync(path).isDirectory() ? join(path, 'config.json') : path;
    const outer = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
    config = { ...outer, ...(outer.text_config as object | undefined) };
  } catch (cause) {
    throw new SmoeError('TRACE_CONFIG', `${path}: cannot read config.json: ${(cause as Error).message}`, {
      hint: "name the model's directory or its config.json, or give --experts-per-token and --experts",
      cause,
    });
  }
  const fact = (field: keyof typeof names): number | undefined =>
    names[field].map((name) => config[name]).find((value): value is number => Number.isInteger(value));
  return { experts: fact('experts'), topK: fact('topK'), vocabularySize: fact('vocabularySize') };
}
