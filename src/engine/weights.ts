import { Kernels, type PackedWeight, type WeightType } from '../kernels/kernels.ts';
import type { Checkpoint } from '../model/checkpoint.ts';
import type { Ownership } from '../schedule/ownership.ts';
import type { Arena } from './arena.ts';
import type { MoeLayerWeights } from './expert-bank.ts';
import type { Partition } from './partition.ts';

/** One layer's attention weights on this rank; norms are pointers to f32. */
export interface AttentionWeights {
  inputNorm: number;
  /** This rank's heads; all heads when queries and keys are normalised over the full projection. */
  query: PackedWeight;
  key: PackedWeight;
  value: PackedWeight;
  queryNorm: number | undefined;
  keyNorm: number | undefined;
  /** One [H, headDimension] weight per local head. */
  output: PackedWeight[];
}

export interface RankWeights {
  embedding: PackedWeight;
  output: PackedWeight;
  finalNorm: number;
  attention: AttentionWeights[];
  moe: MoeLayerWeights[];
}

const leastStagingBytes = 4 << 20;

/**
 * Loads one rank's share of a checkpoint: reserves regions first, then (once the memory exists) reads each tensor it needs
 * through a small staging region and packs it for the kernels.
 */
export class WeightLoader {
  readonly weights: RankWeights;
  readonly #checkpoint: Checkpoint;
  readonly #staging: number;
  readonly #stagingBytes: number;
  readonly #steps: ((loader: LoadStep) => void)[];

  constructor(checkpoint: Checkpoint, arena: Arena, part: Partition, ownership: Ownership, rank: number) {
    const { config, names } = checkpoint;
    const { hiddenSize, headDimension, expertWidth } = config;
    this.#checkpoint = checkpoint;
    this.#steps = [];
    this.#stagingBytes = Math.max(
      leastStagingBytes,
      2 * expertWidth * hiddenSize * 4,
      16 * config.heads * headDimension * 4,
    );
    this.#staging = arena.reserve(this.#stagingBytes);

    const vector = (name: string, length: number): number => {
      const pointer = arena.reserve(length * 4);
      this.#steps.push((step) => step.vector(name, pointer, length));
      return pointer;
    };
    const matrix = (name: string, inputs: number, firstRow: number, rows: number): PackedWeight => {
      const weight = reserveWeight(arena, rows, inputs, this.#typeOf(name));
      this.#steps.push((step) => step.rows(name, firstRow, rows, inputs, 0, [weight]));
      return weight;
    };

    const embedding = matrix(names.embedding, hiddenSize, 0, config.vocabularySize);
    const output = config.tieEmbeddings ? embedding : matrix(names.output, hiddenSize, 0, config.vocabularySize);
    const finalNorm = vector(names.finalNorm, hiddenSize);
    const attention: AttentionWeights[] = [];
    const moe: MoeLayerWeights[] = [];
    for (let layer = 0; layer < config.layers; layer++) {
      const layerNames = names.layer(layer);
      const fullNorm = config.queryKeyNorm === 'full';
      const queryRows = (fullNorm ? config.heads : part.heads) * headDimension;
      const keyRows = (fullNorm ? config.keyValueHeads : part.keyValueHeads) * headDimension;
      const queryFirst = fullNorm ? 0 : part.firstHead * headDimension;
      const keyFirst = fullNorm ? 0 : part.firstKeyValueHead * headDimension;
      const valueFirst = part.firstKeyValueHead * headDimension;
      const heads = Array.from({ length: part.heads }, () =>
        reserveWeight(arena, hiddenSize, headDimension, this.#typeOf(layerNames.attentionOutput)),
      );
      this.#steps.push((step) =>
        step.rows(
          layerNames.attentionOutput,
          0,
          hiddenSize,
          config.heads * headDimension,
          part.firstHead * headDimension,
          heads,
        ),
      );
      const normLength = (full: number): number => (fullNorm ? full : headDimension);
      attention.push({
        inputNorm: vector(layerNames.inputNorm, hiddenSize),
        query: matrix(layerNames.query, hiddenSize, queryFirst, queryRows),
        key: matrix(layerNames.key, hiddenSize, keyFirst, keyRows),
        value: matrix(layerNames.value, hiddenSize, valueFirst, part.keyValueHeads * headDimension),
        queryNorm: layerNames.queryNorm === undefined ? undefined : vector(layerNames.queryNorm, normLength(queryRows)),
        keyNorm: layerNames.keyNorm === undefined ? undefined : vector(layerNames.keyNorm, normLength(keyRows)),
        output: heads,
      });
      const experts: MoeLayerWeights['experts'] = Array.from({ length: config.experts }, () => undefined);
      for (const expert of [...ownership.ownedExperts[layer]![rank]!, ...ownership.copiedExperts[layer]![rank]!]) {
        const expertNames = layerNames.expert(expert);
        const gateUp = reserveWeight(arena, 2 * expertWidth, hiddenSize, this.#typeOf(expertNames.gate));
        this.#steps.push((step) => step.stacked([expertNames.gate, expertNames.up], expertWidth, hiddenSize, gateUp));
        experts[expert] = { gateUp, down: matrix(expertNames.down, expertWidth, 0, hiddenSize) };
      }
      moe.push({
        postAttentionNorm: vector(layerNames.postAttentionNorm, hiddenSize),
        router: matrix(layerNames.router, hiddenSize, 0, config.experts),
        experts,
      });
    }
    this.weights = { embedding, output, finalNorm, attention, moe };
  }

  /** Reads and packs everything reserved; the checkpoint can be closed afterwards. */
  load(kernels: Kernels, memory: WebAssembly.Memory): void {
    const step = new LoadStep(this.#checkpoint, kernels, memory, this.#staging, this.#stagingBytes);
    for (const load of this.#steps) load(step);
  }

  #typeOf(name: string): WeightType {
    return this.#checkpoint.tensor(name).dtype === 'BF16' ? 'bf16' : 'f32';
  }
}

function reserveWeight(arena: Arena, outputs: number, inputs: number, type: WeightType): PackedWeight {
  return { pointer: arena.reserve(Kernels.packedBytes(outputs, inputs, type)), outputs, inputs, type };
}

/** Reads tensors into the staging region and packs them. */
class LoadStep {
  readonly #checkpoint: Checkpoint;
  readonly #kernels: Kernels;
  readonly #bytes: Uint8Array;
  readonly #staging: number;
  readonly #stagingBytes: number;

  constructor(
    checkpoint: Checkpoint,
    kernels: Kernels,
    memory: WebAssembly.Memory,
    staging: number,
    stagingBytes: number,
  ) {
    this.#checkpoint = checkpoint;
    this.#kernels = kernels;
    this.#bytes = new Uint8Array(memory.buffer);
    this.#staging = staging;
    this.#stagingBytes = stagingBytes;
  }

  /** A whole vector, widened to f32 at `pointer`. */
  vector(name: string, pointer: number, length: number): void {
    const { dtype } = this.#checkpoint.tensor(name);
    if (dtype === 'F32') {
      this.#read(name, pointer, 0, length * 4);
      return;
    }
    this.#read(name, this.#staging, 0, length * 2);
    const halves = new Uint16Array(this.#bytes.buffer, this.#staging, length);
    const words = new Uint32Array(this.#bytes.buffer, pointer, length);
    for (let i = 0; i < length; i++) words[i] = halves[i]! << 16;
  }

  /**
   * Rows `firstRow .. firstRow + rows` of a [*, inputs] tensor; each target takes its own `target.inputs` columns, the first
   * from `firstColumn`, the next behind it.
   */
  rows(
    name: string,
    firstRow: number,
    rows: number,
    inputs: number,
    firstColumn: number,
    targets: PackedWeight[],
  ): void {
    const rowBytes = inputs * elementBytes(targets[0]!.type);
    const panel = Kernels.panelWidth;
    const chunk = Math.max(panel, Math.floor(this.#stagingBytes / rowBytes / panel) * panel);
    for (let row = 0; row < rows; row += chunk) {
      const count = Math.min(chunk, rows - row);
      this.#read(name, this.#staging, (firstRow + row) * rowBytes, (firstRow + row + count) * rowBytes);
      let column = firstColumn;
      for (const target of targets) {
        const pointer = target.pointer + row * target.inputs * elementBytes(target.type);
        this.#kernels.packWeight(this.#staging, inputs, column, { ...target, pointer, outputs: count });
        column += target.inputs;
      }
    }
  }

  /** Whole tensors of `rowsEach` rows, stacked into one weight. */
  stacked(names: string[], rowsEach: number, inputs: number, target: PackedWeight): void {
    const bytesEach = rowsEach * inputs * elementBytes(target.type);
    names.forEach((name, i) => this.#read(name, this.#staging + i * bytesEach, 0, bytesEach));
    this.#kernels.packWeight(this.#staging, inputs, 0, target);
  }

  #read(name: string, pointer: number, start: number, end: number): void {
    this.#checkpoint.readTensor(name, this.#bytes.subarray(pointer, pointer + end - start), start, end);
  }
}

function elementBytes(type: WeightType): number {
  return type === 'bf16' ? 2 : 4;
}
