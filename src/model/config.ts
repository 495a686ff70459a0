/** Families whose checkpoints load; one file each under model/families/. */
export type ModelFamily = 'qwen3_moe' | 'mixtral' | 'olmoe';

/** A checkpoint's architecture in one vocabulary, whatever its family. All widths in elements. */
export interface ModelConfig {
  family: ModelFamily;
  layers: number;
  hiddenSize: number;
  vocabularySize: number;
  heads: number;
  keyValueHeads: number;
  headDimension: number;
  experts: number;
  topK: number;
  /** Rows of each expert's gate and up projections. */
  expertWidth: number;
  /** Divide the k routing weights by their sum. */
  normalizeTopK: boolean;
  ropeTheta: number;
  rmsEpsilon: number;
  /** RMS norm of queries and keys: none, over each head (Qwen3), or over the full projection (OLMoE). */
  queryKeyNorm: 'none' | 'head' | 'full';
  /** OLMoE clip_qkv; undefined when absent. */
  clipQueryKeyValue: number | undefined;
  /** Mixtral sliding window in tokens; undefined when absent. */
  slidingWindow: number | undefined;
  tieEmbeddings: boolean;
  maximumPositions: number;
  beginTokenId: number | undefined;
  endTokenIds: number[];
}

/** Tensor names of one family. Every projection is stored [outputs, inputs] row-major. */
export interface TensorNames {
  embedding: string;
  finalNorm: string;
  /** Equal to `embedding` when tied. */
  output: string;
  layer(layer: number): {
    inputNorm: string;
    query: string;
    key: string;
    value: string;
    attentionOutput: string;
    queryNorm: string | undefined;
    keyNorm: string | undefined;
    postAttentionNorm: string;
    router: string;
    expert(expert: number): { gate: string; up: string; down: string };
  };
}
