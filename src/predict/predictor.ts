/** Needs are whole numbers: this one for certainly needed, 0 for certainly not. */
export const certainNeed = 255;
/** Benefit of saving one rank where copies of experts let a home save several; more than two count as two. */
export const oneRankSaved = 127;

/** What a predictor may look at. */
export interface PredictionContext {
  layer: number;
  /** T tokens of the group's step; of this rank's slice where the predictor predicts at home. */
  tokens: number;
  /** [T] */
  tokenIds: Int32Array;
  /** [`longestLookback`][T] plan devices where the tokens were homed one, two, ... layers before; -1 in the first layers. */
  homesBefore: readonly Int16Array[];
  /**
   * At home only: fills benefits [T, tensor ranks] from the layer's own router on the layer's input (residual before attention,
   * post-attention norm), with `doubt` mean absolute deviations of doubt around the choice.
   */
  routeAhead(doubt: number, benefits: Uint8Array): void;
}

/** Says, per token, how probably each plan device is needed. One file per predictor. */
export interface DevicePredictor {
  readonly name: string;
  /**
   * Layers predicted where the token lives, at the end of the layer before, from its hidden row; what living on each rank of
   * the tensor group would save (one byte per rank, copies of experts taken into account) then travels with the row. Other layers are predicted from what every rank of the tensor group already holds, by
   * each for itself. Never true of layer 0.
   */
  atHome(layer: number): boolean;
  /**
   * Fills needs [T, P] (row-major): probability, in steps of 1 / certainNeed, that device d owns one of the token's experts.
   * At home: benefits [T, tensor ranks] instead, larger where the token should live.
   */
  predict(context: PredictionContext, needs: Uint8Array): void;
}
