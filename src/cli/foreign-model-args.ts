import type { ArgsDef } from 'citty';
import { SmoeError } from '../errors.ts';
import { readExpertNumbers } from '../trace/expert-numbers.ts';
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
  'expert-numbers': {
    type: 'string',
    valueHint: 'FILE',
    description: 'Recorded from a renumbered checkpoint: its expert-numbers.json, to go back to the original numbers',
  },
};

/** Facts from the flags, else from expert numbers, else from the config.json of `directory`; its fingerprint when this program can open the checkpoint. */
export function readForeignModel(flags: Flags, directory: string | undefined): KnownModel {
  const count = (name: string, maximum: number): number | undefined =>
    flags.has(name) ? flags.integer(name, { minimum: 1, maximum }) : undefined;
  const config = directory === undefined ? unknownModel : readConfigFacts(directory);
  const numbers = flags.has('expert-numbers') ? readExpertNumbers(flags.string('expert-numbers')) : undefined;
  const experts = numbers?.experts ?? count('experts', 65_536) ?? config.experts;
  return {
    fingerprint:
      numbers?.originalFingerprint ?? (directory === undefined ? unknownModel.fingerprint : fingerprintOf(flags)),
    layers: count('layers', 4096),
    experts,
    ...(numbers === undefined ? {} : { expertOfPosition: numbers.expertOfPosition }),
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
