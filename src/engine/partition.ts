import { SmoeError } from '../errors.ts';
import type { ModelConfig } from '../model/config.ts';
import type { Layout } from './api.ts';

/** One rank's share of attention, vocabulary and place in the layout. Head numbers are global. */
export interface Partition {
  ranks: number;
  dataParallelRank: number;
  tensorParallel: number;
  tensorParallelRank: number;
  firstHead: number;
  heads: number;
  firstKeyValueHead: number;
  keyValueHeads: number;
}

/** Refuses layouts that the model cannot be split into; see docs/bit-identity.md for why tp is a power of two. */
export function assertLayoutFits(config: ModelConfig, layout: Layout): void {
  const { dataParallel, tensorParallel } = layout;
  const refuse = (message: string, hint: string): never => {
    throw new SmoeError('LAYOUT_UNSUPPORTED', message, { hint });
  };
  for (const [name, value] of Object.entries({ dp: dataParallel, tp: tensorParallel })) {
    if (!Number.isInteger(value) || value < 1)
      refuse(`${name} = ${value} is not a positive whole number`, 'use 1, 2, 4, ...');
  }
  if ((tensorParallel & (tensorParallel - 1)) !== 0 || config.heads % tensorParallel !== 0) {
    const fitting = [1, 2, 4, 8, 16, 32, 64].filter((degree) => config.heads % degree === 0);
    refuse(
      `tp = ${tensorParallel} does not divide the model's ${config.heads} attention heads as a power of two`,
      `use tp = ${fitting.join(', ')}`,
    );
  }
  if (config.headDimension % 16 !== 0) {
    throw new SmoeError(
      'MODEL_UNSUPPORTED',
      `attention heads of ${config.headDimension} elements: the kernels need a multiple of 16`,
    );
  }
  const keyValueHeads = config.keyValueHeads;
  if (keyValueHeads % tensorParallel !== 0 && tensorParallel % keyValueHeads !== 0) {
    refuse(`tp = ${tensorParallel} fits neither into nor around ${keyValueHeads} key-value heads`, 'use a smaller tp');
  }
  if (dataParallel * tensorParallel > config.experts) {
    refuse(
      `${dataParallel * tensorParallel} ranks are more than the ${config.experts} experts of a layer`,
      'use fewer ranks',
    );
  }
}

/** The share of `rank`; layout checked before. Key-value heads repeat when there are fewer than tensor ranks. */
export function partition(config: ModelConfig, layout: Layout, rank: number): Partition {
  const { tensorParallel } = layout;
  const tensorParallelRank = rank % tensorParallel;
  const heads = config.heads / tensorParallel;
  const firstHead = tensorParallelRank * heads;
  const headsPerKeyValue = config.heads / config.keyValueHeads;
  const firstKeyValueHead = Math.floor(firstHead / headsPerKeyValue);
  const lastKeyValueHead = Math.floor((firstHead + heads - 1) / headsPerKeyValue);
  return {
    ranks: layout.dataParallel * tensorParallel,
    dataParallelRank: Math.floor(rank / tensorParallel),
    tensorParallel,
    tensorParallelRank,
    firstHead,
    heads,
    firstKeyValueHead,
    keyValueHeads: lastKeyValueHead - firstKeyValueHead + 1,
  };
}

/** Largest power of two that divides `heads`: the leaves of the head tree hold `heads / leaves` heads each. */
export function headTreeLeaves(heads: number): number {
  return heads & -heads;
}
