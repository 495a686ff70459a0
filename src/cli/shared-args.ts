import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { ArgsDef } from 'citty';
import { type Layout, type OverlapName, overlapNames, scheduleNames } from '../engine/api.ts';
import { predictorNames } from '../plan/plan.ts';
import { usageError } from './arguments.ts';
import type { Flags } from './flags.ts';

export const mostRanks = 64;
const mostThreadsPerRank = 64;

export const jsonArgs: ArgsDef = {
  json: { type: 'boolean', description: 'Print one JSON object on stdout; failures too' },
};

/** The model as a positional argument or a flag; both may not differ. */
export const modelArgs: ArgsDef = {
  directory: { type: 'positional', required: false, description: 'Model directory, as --model' },
  model: {
    type: 'string',
    valueHint: 'DIR',
    description: 'Directory with config.json, safetensors weights and tokenizer.json; the shipped model when not given',
  },
};

export const layoutArgs: ArgsDef = {
  ranks: { type: 'string', valueHint: 'N', description: 'Ranks = data-parallel times tensor-parallel degree' },
  dp: { type: 'string', valueHint: 'N', description: 'Data-parallel degree of attention (1 when not given)' },
  tp: {
    type: 'string',
    valueHint: 'N',
    description: 'Tensor-parallel degree of attention (ranks / dp when not given)',
  },
};

export const predictorArgs: ArgsDef = {
  predictor: {
    type: 'string',
    valueHint: 'NAME',
    default: 'combined',
    description: `How \`speculative\` predicts devices: ${predictorNames.join(', ')}`,
  },
};

export const planArgs: ArgsDef = {
  plan: {
    type: 'string',
    valueHint: 'FILE',
    description: 'Plan file; when not given: the shipped one, a cached one, or one solved now and cached',
  },
  profile: {
    type: 'string',
    valueHint: 'FILE',
    description: 'Text to record routing from when a plan must be solved (.jsonl or .txt); shipped text when not given',
  },
  cache: {
    type: 'string',
    valueHint: 'DIR',
    description: 'Where solved plans are kept; $XDG_CACHE_HOME/speculative-moe when not given',
  },
};

export const seedArgs: ArgsDef = {
  seed: { type: 'string', valueHint: 'N', default: '1', description: 'Seed of sampling and of solvers' },
};

export const stepArgs: ArgsDef = {
  'step-tokens': {
    type: 'string',
    valueHint: 'N',
    default: '512',
    description: 'Most tokens one step computes per data-parallel group; longer prompts are prefilled in chunks',
  },
};

export const overlapArgs: ArgsDef = {
  overlap: {
    type: 'string',
    valueHint: 'A,B',
    default: 'auto',
    description: `What is computed while something is on its way: none, all, or some of ${overlapNames.join(', ')}; auto: all over links, prepare in memory`,
  },
};

export const compactRowArgs: ArgsDef = {
  'compact-rows': {
    type: 'string',
    valueHint: 'auto|on|off',
    default: 'auto',
    description:
      'Send rows without what their exponents repeat, bit for bit, under speculative and dedup; auto: speculative, over links',
  },
};

export const oneShotArgs: ArgsDef = {
  'one-shot-tokens': {
    type: 'string',
    valueHint: 'N',
    default: 'auto',
    description:
      'Steps of at most N tokens exchange rows twice a layer instead of four times, in more bytes, under speculative and dedup when --dp is 1; auto: speculative, where that is faster',
  },
};

export const threadArgs: ArgsDef = {
  'threads-per-rank': {
    type: 'string',
    valueHint: 'N',
    default: '1',
    description: 'Threads that share the matrix products of a rank; changes no bit',
  },
};

export function readThreadsPerRank(flags: Flags): number {
  return flags.integer('threads-per-rank', { minimum: 1, maximum: mostThreadsPerRank });
}

export const scheduleList: string = scheduleNames.join(', ');

/** --ranks, --dp and --tp, any two of which give the third. */
export function readLayout(flags: Flags, defaultRanks: number): Layout {
  const degree = (name: string): number | undefined =>
    flags.has(name) ? flags.integer(name, { minimum: 1, maximum: mostRanks }) : undefined;
  const [ranks, dp, tp] = [degree('ranks'), degree('dp'), degree('tp')];
  const dataParallel = dp ?? (ranks !== undefined && tp !== undefined ? ranks / tp : 1);
  const tensorParallel = tp ?? (ranks ?? Math.max(dataParallel, defaultRanks)) / dataParallel;
  const product = dataParallel * tensorParallel;
  if (
    !Number.isInteger(dataParallel) ||
    !Number.isInteger(tensorParallel) ||
    (ranks !== undefined && product !== ranks)
  ) {
    throw usageError(
      'USAGE_BAD_VALUE',
      `--ranks ${ranks ?? defaultRanks} is not --dp ${dp ?? '?'} times --tp ${tp ?? '?'}`,
      {
        hint: 'give two of the three; ranks = dp * tp',
      },
    );
  }
  return { dataParallel, tensorParallel };
}

/** --overlap: `auto` (undefined), `none`, `all`, or names. */
export function readOverlap(flags: Flags): OverlapName[] | undefined {
  const whole = ['auto', 'none', 'all'] as const;
  const words = flags.choices('overlap', [...whole, ...overlapNames]);
  if (words.length > 1 && whole.some((word) => words.includes(word)))
    throw usageError('USAGE_BAD_VALUE', `--overlap: ${words.join(',')} mixes names with auto, none or all`, {
      hint: `give auto, none, all, or some of ${overlapNames.join(', ')}`,
    });
  if (words.includes('auto')) return undefined;
  return overlapNames.filter((name) => words.includes('all') || words.includes(name));
}

/** --compact-rows: undefined for `auto`. */
export function readCompactRows(flags: Flags): boolean | undefined {
  const word = flags.choice('compact-rows', ['auto', 'on', 'off']);
  return word === 'auto' ? undefined : word === 'on';
}

/** --one-shot-tokens: undefined for `auto`. */
export function readOneShotTokens(flags: Flags): number | undefined {
  return flags.optional('one-shot-tokens') === 'auto' ? undefined : flags.integer('one-shot-tokens', { minimum: 0 });
}

/** --out, refused at once when its folder is not there rather than after the work. */
export function readOutputPath(flags: Flags): string | undefined {
  const path = flags.optional('out');
  if (path === undefined || existsSync(dirname(path))) return path;
  throw usageError('USAGE_BAD_VALUE', `--out: there is no folder ${dirname(path)}`, {
    hint: 'make it, or name another',
  });
}

export function ranksOf(layout: Layout): number {
  return layout.dataParallel * layout.tensorParallel;
}

export function describeLayout(layout: Layout): string {
  return `${ranksOf(layout)} ranks (dp ${layout.dataParallel}, tp ${layout.tensorParallel})`;
}
