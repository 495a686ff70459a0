/** Facts of the model a trace was recorded from. */
export interface TraceModel {
  /** Short fingerprint of the checkpoint (see model/fingerprint.ts), or a foreign model's name. */
  fingerprint: string;
  /** MoE layers only, in order; `layers` below counts these. */
  layers: number;
  experts: number;
  topK: number;
  /** 0 when token ids are unknown. */
  vocabularySize: number;
}

/** The recorded rows of a trace, column by column. n = token occurrences, L = MoE layers, k = experts per token. */
export interface TraceRows {
  length: number;
  /** [n] request number, dense from 0. */
  request: Int32Array;
  /** [n] position in its request. */
  position: Int32Array;
  /** [n] token id, -1 where unknown. */
  token: Int32Array;
  /** [n] 0 prefill, 1 decode. */
  phase: Uint8Array;
  /** [n][L][k] distinct expert ids, ascending within a (token, layer). */
  experts: Uint16Array;
  /** [n][L][k] routing weights in the order of `experts`, or undefined when not recorded. */
  weights: Float32Array | undefined;
}

/** Recorded routing. Rows of one request are consecutive and ordered by position. */
export interface RoutingTrace extends TraceRows {
  model: TraceModel;
  /** Free text: where the tokens came from (data set, part, labels). */
  source: string;
  /** [request] label such as a text's domain; empty when unknown. */
  labels: string[];
}
