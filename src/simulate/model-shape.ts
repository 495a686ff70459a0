import type { ModelConfig } from '../model/config.ts';

/** What of a model decides bytes and arithmetic. Widths in elements. */
export interface ModelShape {
  layers: number;
  experts: number;
  topK: number;
  hiddenSize: number;
  heads: number;
  keyValueHeads: number;
  headDimension: number;
  expertWidth: number;
  vocabularySize: number;
  tiedEmbeddings: boolean;
  /** Bytes of an element on its way between ranks and in the cache: 4 in this project's engine, 2 in most GPU engines. */
  activationBytes: number;
  /** Bytes of a weight: 2 for bfloat16 checkpoints. */
  weightBytes: number;
}

export function modelShape(config: ModelConfig, activationBytes: number = 4, weightBytes: number = 2): ModelShape {
  const { layers, experts, topK, hiddenSize, heads, keyValueHeads, headDimension, expertWidth, vocabularySize } =
    config;
  return {
    ...{ layers, experts, topK, hiddenSize, heads, keyValueHeads, headDimension, expertWidth, vocabularySize },
    tiedEmbeddings: config.tieEmbeddings,
    activationBytes,
    weightBytes,
  };
}

/** Bytes of one expert's gate, up and down projections. */
export function expertBytes({ hiddenSize, expertWidth, weightBytes }: ModelShape): number {
  return 3 * hiddenSize * expertWidth * weightBytes;
}

/** Elements of one layer's attention projections that a rank of `tensorParallel` holds. */
export function attentionElements(shape: ModelShape, tensorParallel: number): number {
  const { hiddenSize, headDimension, heads } = shape;
  return hiddenSize * headDimension * (2 * (heads / tensorParallel) + 2 * localKeyValueHeads(shape, tensorParallel));
}

/** Key-value heads repeat when there are fewer than tensor ranks. */
export function localKeyValueHeads({ keyValueHeads }: ModelShape, tensorParallel: number): number {
  return Math.max(1, keyValueHeads / tensorParallel);
}

/** Bytes of weights besides experts that every rank holds; embeddings are not split. */
export function sharedWeightBytes(shape: ModelShape, tensorParallel: number): number {
  const { layers, experts, hiddenSize, vocabularySize, tiedEmbeddings, weightBytes } = shape;
  const perLayer = attentionElements(shape, tensorParallel) + experts * hiddenSize;
  return (layers * perLayer + (tiedEmbeddings ? 1 : 2) * vocabularySize * hiddenSize) * weightBytes;
}
