import { badRecord, badShape } from '../bad-record.ts';
import type { TraceSink, Where } from '../trace-sink.ts';
import { kindOf } from './fields.ts';

/** Routing of consecutive positions as a server gives it. n = positions, D = layers it reports (dense ones perhaps included). */
export interface RoutedExperts {
  /** Position of the first row. */
  start: number;
  tokens: number;
  layers: number;
  topK: number;
  /** [n][D][k]; -1 where the server had the position cached */
  ids: Int32Array;
}

/** One request's answer. */
export interface RoutedAnswer {
  label: string;
  /** Token ids of prompt and completion; empty when the server did not say. */
  promptTokens: number[];
  completionTokens: number[];
  /** Positions of the prompt; later ones were generated. */
  promptLength: number;
  routed: RoutedExperts[];
}

export type IntegerType = 'uint8' | 'int8' | 'uint16' | 'int16' | 'int32' | 'int64';
const widths: Readonly<Record<IntegerType, number>> = { uint8: 1, int8: 1, uint16: 2, int16: 2, int32: 4, int64: 8 };

export function isIntegerType(name: unknown): name is IntegerType {
  return typeof name === 'string' && Object.hasOwn(widths, name);
}

/** Bytes of base64 text; Node.js itself passes damage over in silence. */
export function base64Bytes(where: Where, field: string, value: unknown): Buffer {
  if (typeof value !== 'string') throw badRecord(where(), `${field}: expected base64 text, found ${kindOf(value)}`);
  if (value.length % 4 === 1 || !/^[A-Za-z0-9+/]*={0,2}$/.test(value))
    throw badRecord(where(), `${field}: not base64`, 'the answer is damaged or cut off');
  return Buffer.from(value, 'base64');
}

/** Little-endian integers of a type as int32; values beyond int32 become -2, which no expert has. */
export function integersFrom(where: Where, field: string, bytes: Buffer, type: IntegerType): Int32Array {
  const width = widths[type];
  if (bytes.length % width !== 0)
    throw badRecord(where(), `${field}: ${bytes.length} bytes are no whole number of ${type}`);
  const values = new Int32Array(bytes.length / width);
  for (let i = 0; i < values.length; i++) {
    const at = i * width;
    if (type === 'uint8') values[i] = bytes[at]!;
    else if (type === 'int8') values[i] = bytes.readInt8(at);
    else if (type === 'uint16') values[i] = bytes.readUInt16LE(at);
    else if (type === 'int16') values[i] = bytes.readInt16LE(at);
    else if (type === 'int32') values[i] = bytes.readInt32LE(at);
    else values[i] = int32OrNone(bytes.readBigInt64LE(at));
  }
  return values;
}

function int32OrNone(value: bigint): number {
  return value >= -1n && value < 65_536n ? Number(value) : -2;
}

/** Nested lists [n][D][k] as routing; `undefined` for an empty list. */
export function routedFromLists(
  where: Where,
  field: string,
  rows: unknown[],
  start: number,
): RoutedExperts | undefined {
  const layers = sizeOf(where, `${field}[0]`, rows[0]);
  if (rows.length === 0) return undefined;
  const topK = sizeOf(where, `${field}[0][0]`, (rows[0] as unknown[])[0]);
  const ids = new Int32Array(rows.length * layers * topK);
  let at = 0;
  for (const [token, row] of rows.entries()) {
    if (!Array.isArray(row) || row.length !== layers) {
      throw badShape(
        where(),
        `${field}[${token}]: ${Array.isArray(row) ? `${row.length} layers` : kindOf(row)}, expected ${layers} layers`,
        'every token needs every layer',
      );
    }
    for (const [layer, experts] of (row as unknown[]).entries()) {
      if (!Array.isArray(experts) || experts.length !== topK) {
        throw badShape(
          where(),
          `${field}[${token}][${layer}]: ${Array.isArray(experts) ? `${experts.length} experts` : kindOf(experts)}, expected ${topK} experts`,
          'every layer needs the same k',
        );
      }
      for (const expert of experts as unknown[]) {
        if (!Number.isInteger(expert))
          throw badRecord(where(), `${field}[${token}][${layer}]: expert ${kindOf(expert)}`);
        ids[at++] = expert as number;
      }
    }
  }
  return { start, tokens: rows.length, layers, topK, ids };
}

function sizeOf(where: Where, field: string, value: unknown): number {
  if (value === undefined) return 0;
  if (Array.isArray(value) && value.length > 0) return value.length;
  throw badShape(
    where(),
    `${field}: expected a list, found ${Array.isArray(value) ? 'an empty one' : kindOf(value)}`,
    'expected [token][layer][expert]',
  );
}

/** With k = 1 a layer must say expert 0 for so many tokens before it is taken for dense. */
const fewestDenseTokens = 16;

/**
 * Adds answers to a trace. Servers report dense layers as rows of one repeated id: layers that are so throughout the first answer
 * are left out of every one.
 */
export class AnswerCollector {
  readonly #sink: TraceSink;
  #reportedLayers: number = 0;
  /** Indices of the layers that are routed. */
  #layers: number[] = [];
  #cached: number = 0;

  constructor(sink: TraceSink) {
    this.#sink = sink;
  }

  /** Positions left out because the server had them cached or did not capture them. */
  get cachedPositions(): number {
    return this.#cached;
  }

  add(where: Where, answer: RoutedAnswer): void {
    const { label, promptTokens, completionTokens, promptLength } = answer;
    const tokenAt = (position: number): number =>
      (position < promptLength ? promptTokens[position] : completionTokens[position - promptLength]) ?? -1;
    this.#sink.beginRequest(label);
    const row: number[] = [];
    for (const { start, tokens: count, layers, topK, ids } of answer.routed) {
      this.#learnLayers(where, layers, topK, count, ids);
      for (let i = 0; i < count && !this.#sink.full; i++) {
        const base = i * layers * topK;
        if (isUnfilled(ids, base, layers * topK, topK)) {
          this.#cached++;
          continue;
        }
        for (const [index, layer] of this.#layers.entries()) {
          for (let j = 0; j < topK; j++) row[index * topK + j] = ids[base + layer * topK + j]!;
        }
        const position = start + i;
        const whereRow = (): string => `${where()}, position ${position}`;
        this.#sink.shape(whereRow, this.#layers.length, topK, false);
        this.#sink.add(whereRow, position, tokenAt(position), position < promptLength ? 0 : 1, row);
      }
    }
  }

  #learnLayers(where: Where, layers: number, topK: number, count: number, ids: Int32Array): void {
    if (this.#reportedLayers === 0) {
      const filled = Array.from({ length: count }, (_, i) => i * layers * topK).filter(
        (base) => !isUnfilled(ids, base, layers * topK, topK),
      );
      if (filled.length === 0) return;
      this.#reportedLayers = layers;
      this.#layers = Array.from({ length: layers }, (_, layer) => layer).filter(
        (layer) => !isDense(ids, filled, topK, layer),
      );
      const dense = layers - this.#layers.length;
      if (this.#layers.length === 0)
        throw badShape(where(), 'no layer is routed', 'is it a mixture-of-experts model, and was capturing on?');
      if (dense > 0) this.#sink.notes.push(`${dense} of ${layers} layers are dense and left out`);
    }
    if (layers !== this.#reportedLayers)
      throw badShape(where(), `${layers} layers, ${this.#reportedLayers} before`, 'one trace holds one model');
  }
}

/** A row without routing: -1 where the position was cached; one id throughout where nothing was captured. */
function isUnfilled(ids: Int32Array, base: number, width: number, topK: number): boolean {
  const first = ids[base]!;
  if (topK === 1 && first !== -1) return false;
  for (let i = 1; i < width; i++) if (ids[base + i] !== first) return false;
  return true;
}

/** @param bases where rows that are filled start */
function isDense(ids: Int32Array, bases: number[], topK: number, layer: number): boolean {
  if (topK === 1) return bases.length >= fewestDenseTokens && bases.every((base) => ids[base + layer] === 0);
  return bases.every((base) => {
    const from = base + layer * topK;
    for (let j = 1; j < topK; j++) if (ids[from + j] !== ids[from]) return false;
    return true;
  });
}
