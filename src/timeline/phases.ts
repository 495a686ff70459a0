/** What a rank does with its time. Waits are inside collectives; the rest computes. */
export const phaseNames = [
  'other',
  'embed',
  'attention',
  'predict',
  'slices',
  'permute',
  'router',
  'pack',
  'experts',
  'combine',
  'logits',
  'sample',
  'wait attention',
  'wait dispatch',
  'wait combine',
  'wait control',
] as const;
export type PhaseName = (typeof phaseNames)[number];

/** Number of each phase, for hot paths. */
export const Phase = {
  /** Batching, records, events. */
  other: 0,
  embed: 1,
  /** Norm, projections, keys and values, scores, output projection. */
  attention: 2,
  /** Which devices tokens will need. */
  predict: 3,
  /** Which rank takes which token. */
  slices: 4,
  /** Moving rows into shuffled order and back. */
  permute: 5,
  /** Residual, norm, router, top-k. */
  router: 6,
  /** Sorting rows by destination and by expert, segments in and out. */
  pack: 7,
  experts: 8,
  /** Adding partial sums at home. */
  combine: 9,
  logits: 10,
  sample: 11,
  waitAttention: 12,
  waitDispatch: 13,
  waitCombine: 14,
  waitControl: 15,
} as const;

export const firstWaitPhase: number = Phase.waitAttention;

/** What shuffling costs by itself: everything `speculative` does that `dedup` does not. */
export const shufflePhases: readonly PhaseName[] = ['predict', 'slices', 'permute'];
