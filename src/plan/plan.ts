/**
 * What a plan is: which device owns each expert, which devices hold copies, and the tables that predict a token's
 * device. Plain frozen data; solvers return it, nothing about running is in it. P = plan devices, L = MoE layers,
 * N = experts, V = vocabulary. Symbols: docs/method.md.
 */
export interface PlanPromise {
  /** Trace the figures were measured on, and how many token occurrences. */
  source: string;
  tokens: number;
  localActivationRate: number;
  remoteDevicesPerToken: number;
  loadImbalance: number;
  /** Per layer. */
  layers: { localActivationRate: number; remoteDevicesPerToken: number; loadImbalance: number }[];
}

/** Predictors whose tables or settings a plan can hold; 'random' is the adversary of the tests. */
export const predictorNames = ['token', 'transition', 'pregate', 'combined', 'random'] as const;
export type PredictorName = (typeof predictorNames)[number];

/** Predictors a layer can do best with. */
export const layerPredictorNames = ['token', 'transition', 'pregate'] as const;
export type LayerPredictorName = (typeof layerPredictorNames)[number];

/** Layers before that a transition table can look at. */
export const longestLookback = 3;

/** Steps of `tokenSaves` per device. */
export const savesScale = 64;

/** A device is "needed" by a token when it owns at least one of the token's k experts. Probabilities are stored times 255. */
export interface PredictionTables {
  /** T: [L][V] device needed most probably by a token of this id; ties to the lower device. */
  tokenDevice: Uint8Array;
  /** T_p: [L][V] probability that `tokenDevice` is needed. */
  tokenConfidence: Uint8Array;
  /** [L][V][P] probability that a token of this id needs device d: the soft form of T used for balancing. */
  tokenNeeds: Uint8Array;
  /**
   * Only in plans with copies: [L][V][P] devices that a token of this id need not be sent to when d is its home (d itself and those
   * whose experts it has copies of there), mean times `savesScale`, at most 255. What tells homes apart where copies count.
   */
  tokenSaves?: Uint8Array;
  /** Layers before that `transitionNeeds` looks at, 1 to `longestLookback`. */
  transitionLookback: number;
  /**
   * A, generalised: [L][P^lookback][P] probability that device d is needed, at the token's home devices in the layers before, the
   * nearest one the most significant digit. Layer 0 holds the prior throughout; digits of layers before layer 0 are ignored.
   */
  transitionNeeds: Uint8Array;
  /** [L] predictor that did best in profiling, for 'combined'. */
  bestPredictor: LayerPredictorName[];
}

export interface Plan {
  version: 1;
  /** model/fingerprint.ts */
  modelFingerprint: string;
  devices: number;
  layers: number;
  experts: number;
  topK: number;
  vocabularySize: number;
  solver: string;
  /** E: [L][N] owner device of each expert. Every device owns at least one. */
  expertOwner: Uint16Array;
  /** [L][P] extra expert ids copied to a device, ascending; empty lists without replicas. */
  replicas: number[][][];
  /** Undefined when the plan was made without token ids (contiguous). */
  prediction: PredictionTables | undefined;
  /** Undefined for a plan that was not measured. */
  promise: PlanPromise | undefined;
  /** For people: bounds the solver had to relax and the like. */
  notes?: string[];
}
