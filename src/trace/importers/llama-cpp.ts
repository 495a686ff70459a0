import { SmoeError } from '../../errors.ts';
import { badRecord, badShape } from '../bad-record.ts';
import type { TraceSink } from '../trace-sink.ts';
import { ByteCursor } from './byte-cursor.ts';
import type { TraceImporter } from './importer.ts';

const magic = 0x43525452;
const version = 1;
const mostTokens = 1 << 24;
/** A jump back by at most so many positions is a rejected speculative draft; by more, a new request that reuses cached positions. */
const longestRollback = 64;

/** One evaluation: its tokens and, per layer, their experts. n = tokens. */
interface Evaluation {
  offset: number;
  sequence: number;
  tokens: Int32Array;
  positions: Int32Array;
  layers: Map<number, { tokens: number; topK: number; ids: Int32Array }>;
}

interface Row {
  where: () => string;
  position: number;
  token: number;
  phase: 0 | 1;
  experts: Int32Array;
}

/**
 * llama.cpp route traces (.rtrc), little-endian: u32 magic "RTRC", u32 version 1; then records: u8 0, u32 seq, u32 n, i32 tok[n],
 * i32 pos[n] opens an evaluation, and u8 1, u32 seq, i32 layer, u32 k, u32 n, i32 ids[n][k] adds a layer to it. The format does not
 * say which request a token is of: a position that does not go on from the last one begins a request.
 */
export const llamaCpp: TraceImporter = {
  name: 'llama-cpp',
  describes: 'llama.cpp route traces (.rtrc) of one sequence at a time',
  recognises: ({ bytes }) => bytes.length >= 4 && bytes.readUInt32LE() === magic,
  async read(path, sink) {
    const cursor = new ByteCursor(path);
    try {
      if (cursor.uint32('the magic number') !== magic)
        throw badRecord(`${path}, byte 0`, 'the magic number is not RTRC');
      const found = cursor.uint32('the version');
      if (found !== version) throw badRecord(`${path}, byte 4`, `version ${found}, this program reads ${version}`);
      const reader = new RouteReader(path, sink);
      while (!cursor.atEnd && !sink.full) readRecord(cursor, reader);
      reader.finish();
    } finally {
      cursor.close();
    }
  },
};

function readRecord(cursor: ByteCursor, reader: RouteReader): void {
  const { path, offset } = cursor;
  const where = `${path}, record at byte ${offset}`;
  const type = cursor.uint8('a record');
  if (type > 1) throw badRecord(where, `type ${type} is neither 0 (tokens) nor 1 (layer)`, 'the file is damaged here');
  const sequence = cursor.uint32('seq');
  if (type === 0) {
    const count = cursor.uint32('n');
    if (count < 1 || count > mostTokens) {
      throw badRecord(where, `n: ${count} tokens`, 'a crash may have padded the file with zeros; cut it here');
    }
    const tokens = cursor.int32s(count, 'tok');
    const positions = cursor.int32s(count, 'pos');
    reader.open({ offset, sequence, tokens, positions, layers: new Map() });
    return;
  }
  const layer = cursor.int32('layer');
  const topK = cursor.uint32('k');
  const tokens = cursor.uint32('n');
  if (layer < 0 || layer > 4095) throw badRecord(where, `layer: ${layer} is not from 0 to 4095`);
  if (topK < 1 || topK > 255) throw badRecord(where, `k: ${topK} is not from 1 to 255`);
  if (tokens > mostTokens) throw badRecord(where, `n: ${tokens} tokens`);
  reader.addLayer(where, sequence, layer, tokens, topK, cursor.int32s(topK * tokens, 'ids'));
}

/** Puts evaluations together to requests. */
class RouteReader {
  readonly #path: string;
  readonly #sink: TraceSink;
  #open: Evaluation | undefined;
  /** Layer numbers kept, ascending; known from the first evaluation on. */
  #layers: number[] | undefined;
  #topK: number = 0;
  /** Rows of the request that is going on; drafts may yet be taken back. */
  #rows: Row[] = [];

  constructor(path: string, sink: TraceSink) {
    this.#path = path;
    this.#sink = sink;
  }

  open(evaluation: Evaluation): void {
    this.#closeEvaluation();
    this.#open = evaluation;
  }

  addLayer(where: string, sequence: number, layer: number, tokens: number, topK: number, ids: Int32Array): void {
    const evaluation = this.#open;
    if (evaluation === undefined || evaluation.sequence !== sequence) {
      throw badRecord(where, `seq: ${sequence}, but the tokens before are of ${evaluation?.sequence ?? 'none'}`);
    }
    if (evaluation.layers.has(layer)) throw badRecord(where, `layer ${layer} appears twice in evaluation ${sequence}`);
    evaluation.layers.set(layer, { tokens, topK, ids });
  }

  finish(): void {
    this.#closeEvaluation();
    this.#closeRequest();
  }

  #closeEvaluation(): void {
    const evaluation = this.#open;
    this.#open = undefined;
    if (evaluation === undefined) return;
    const { sequence, tokens, positions } = evaluation;
    const where = `${this.#path}, evaluation ${sequence} at byte ${evaluation.offset}`;
    const experts = this.#expertsOf(where, evaluation);
    const width = this.#layers!.length * this.#topK;
    for (let i = 0; i < tokens.length; i++) {
      const position = positions[i]!;
      this.#makeRoom(where, position, i);
      this.#rows.push({
        where: () => `${where}, token ${i}`,
        position,
        token: tokens[i]!,
        phase: tokens.length > 1 ? 0 : 1,
        experts: experts.subarray(i * width, (i + 1) * width),
      });
    }
  }

  /** [n][L][k] */
  #expertsOf(where: string, { tokens, layers: found }: Evaluation): Int32Array {
    const known = this.#sink.known.layers;
    this.#layers ??= [...found.keys()].sort((a, b) => a - b).slice(0, known);
    const layers = this.#layers;
    if (layers.length === 0 || layers.length < (known ?? 0)) {
      throw badShape(
        where,
        `holds ${layers.length} layers${known === undefined ? '' : `, expected ${known}`}`,
        'the recording is cut off here',
      );
    }
    if (known === undefined && found.size > layers.length) {
      throw badShape(
        where,
        `holds ${found.size} layers, ${layers.length} before`,
        'give --layers to keep the first ones',
      );
    }
    const topK = found.get(layers[0]!)?.topK ?? 0;
    if (this.#topK === 0) this.#topK = topK;
    const experts = new Int32Array(tokens.length * layers.length * this.#topK);
    for (const [index, layer] of layers.entries()) {
      const record = found.get(layer);
      if (record === undefined) throw badShape(where, `layer ${layer} is missing`, 'the recording is cut off here');
      if (record.topK !== this.#topK)
        throw badShape(
          where,
          `layer ${layer}: k is ${record.topK}, ${this.#topK} before`,
          'every layer needs the same k',
        );
      if (record.tokens !== tokens.length) {
        throw badShape(
          where,
          `layer ${layer}: routing of ${record.tokens} of ${tokens.length} tokens`,
          `llama.cpp computes its last layer for output tokens only; leave it out with --layers ${Math.max(1, index)}`,
        );
      }
      for (let i = 0; i < tokens.length; i++) {
        experts.set(
          record.ids.subarray(i * this.#topK, (i + 1) * this.#topK),
          (i * layers.length + index) * this.#topK,
        );
      }
    }
    return experts;
  }

  /** Ends the request or takes rows back where the position does not go on. */
  #makeRoom(where: string, position: number, index: number): void {
    const last = this.#rows.at(-1)?.position ?? -1;
    if (position === last + 1 || this.#rows.length === 0) return;
    if (index > 0 && position !== 0) {
      throw badRecord(
        `${where}, token ${index}`,
        `pos: ${position} after ${last}`,
        'tokens of several sequences are mixed; record with one sequence (-np 1)',
      );
    }
    const kept = this.#rows.findIndex((row) => row.position >= position);
    if (position > 0 && kept > 0 && this.#rows.length - kept <= longestRollback) this.#rows.length = kept;
    else this.#closeRequest();
  }

  #closeRequest(): void {
    const rows = this.#rows;
    this.#rows = [];
    if (rows.length === 0 || this.#sink.full) return;
    this.#sink.shape(rows[0]!.where, this.#layers!.length, this.#topK, false);
    this.#sink.beginRequest();
    for (const { where, position, token, phase, experts } of rows) {
      if (this.#sink.full) return;
      if (token < 0)
        throw new SmoeError('TRACE_BAD_RECORD', `${where()}: tok: ${token} is no token id`, {
          hint: 'embeddings were given instead of tokens',
        });
      this.#sink.add(where, position, token, phase, experts);
    }
  }
}
