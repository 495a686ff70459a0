/** What a predictor may look at: only things every rank of the tensor-parallel group already holds. */
export interface PredictionContext {
  layer: number;
  /** T tokens of the group's step. */
  tokens: number;
  /** [T] */
  tokenIds: Int32Array;
  /** [`longestLookback`][T] plan devices where the tokens were homed one, two, ... layers before; -1 in the first layers. */
  homesBefore: readonly Int16Array[];
  /** The layer's own router on the layer's input (residual before attention, post-attention norm): logits [T, N]. */
  pregateLogits(): Float32Array;
}

/** Says, per token, how probably each plan device is needed. One file per predictor. */
export interface DevicePredictor {
  readonly name: string;
  /** Fills needs [T, P] (row-major, 0..1): probability that device d owns at least one of the token's experts. */
  predict(context: PredictionContext, needs: Float32Array): void;
}
