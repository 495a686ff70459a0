/** Which tensors a model needs and their shapes, in the order a forward pass meets them. */
import type { ModelConfig, TensorNames } from './config.ts';

export interface ExpectedTensor {
  name: string;
  shape: number[];
}

/** Lazy, so that a hostile layer or expert count costs nothing before the first missing tensor is found. */
export function* expectedTensors(config: ModelConfig, names: TensorNames): Generator<ExpectedTensor> {
  const { hiddenSize, vocabularySize, headDimension, expertWidth } = config;
  const queryWidth = config.heads * headDimension;
  const keyValueWidth = config.keyValueHeads * headDimension;
  yield { name: names.embedding, shape: [vocabularySize, hiddenSize] };
  for (let index = 0; index < config.layers; index += 1) {
    const layer = names.layer(index);
    yield { name: layer.inputNorm, shape: [hiddenSize] };
    yield { name: layer.query, shape: [queryWidth, hiddenSize] };
    yield { name: layer.key, shape: [keyValueWidth, hiddenSize] };
    yield { name: layer.value, shape: [keyValueWidth, hiddenSize] };
    yield { name: layer.attentionOutput, shape: [hiddenSize, queryWidth] };
    const perHead = config.queryKeyNorm === 'head';
    if (layer.queryNorm !== undefined) yield { name: layer.queryNorm, shape: [perHead ? headDimension : queryWidth] };
    if (layer.keyNorm !== undefined) yield { name: layer.keyNorm, shape: [perHead ? headDimension : keyValueWidth] };
    yield { name: layer.postAttentionNorm, shape: [hiddenSize] };
    yield { name: layer.router, shape: [config.experts, hiddenSize] };
    for (let expert = 0; expert < config.experts; expert += 1) {
      const { gate, up, down } = layer.expert(expert);
      yield { name: gate, shape: [expertWidth, hiddenSize] };
      yield { name: up, shape: [expertWidth, hiddenSize] };
      yield { name: down, shape: [hiddenSize, expertWidth] };
    }
  }
  yield { name: names.finalNorm, shape: [hiddenSize] };
  if (names.output !== names.embedding) yield { name: names.output, shape: [vocabularySize, hiddenSize] };
}
