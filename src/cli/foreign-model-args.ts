import type { ArgsDef } from 'citty';
import { SmoeError } from '../errors.ts';
import { readConfigFacts } from '../trace/live/config-facts.ts';
import { type KnownModel, unknownModel } from '../trace/trace-sink.ts';
import type { Flags } from './flags.ts';
import { readModel } from './model-directory.ts';

/** What foreign recordings and servers often do not say about the model. */
export const foreignModelArgs: ArgsDef = {
  experts: { type: 'string', valueHint: 'N', description: 'Experts per MoE layer, where the data do not say' },
  'experts-per-token': {
    type: 'string',
    valueHint: 'N',
    description: 'Experts per token; needed for the bytes of SGLang without --model',
  },
  vocabulary: { type: 'string', valueHint: 'N', description: 'Vocabulary size, where the data do not say' },
  layers: { type: 'string', valueHint: 'N', description: 'Keep the first N MoE layers; refuse data with fewer' },
};

/** Facts from the flags, else from the config.json of `directory`; its fingerprint when this program can open the checkpoint. */
export function readForeignModel(flags: Flags, directory: string | undefined): KnownModel {
  const count = (name: string, maximum: number): number | undefined =>
    flags.has(name) ? flags.integer(name, { minimum: 1, maximum }) : undefined;
  const config = directory === undefined ? unknownModel : readConfigFacts(directory);
  return {
    fingerprint: directory === undefined ? unknownModel.fingerprint : fingerprintOf(flags),
    layers: count('layers', 4096),
    experts: count('experts', 65_536) ?? config.experts,
    topK: count('experts-per-token', 255) ?? config.topK,
    vocabularySize: count('vocabulary', 2 ** 31 - 1) ?? config.vocabularySize,
  };
}

/** Families that this program does not run have a config.json all the same. */
function fingerprintOf(flags: Flags): string {
  try {
    return readModel(flags).fingerprint;
  } catch (error) {
    if (error instanceof SmoeError) return unknownModel.fingerprint;
    throw error;
  }
}
