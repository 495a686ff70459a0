import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import {
  type AsyncBuffer,
  asyncBufferFromFile,
  type DecodedArray,
  type FileMetaData,
  parquetMetadataAsync,
  parquetRead,
} from 'hyparquet';
import { fileWriter, ParquetWriter, type SchemaElement } from 'hyparquet-writer';
import { SmoeError } from '../errors.ts';
import { parquetCompressors } from './parquet-compressors.ts';
import type { RoutingTrace, TraceModel, TraceRows } from './routing-trace.ts';
import { validateTrace, validateTraceModel } from './validate.ts';

/**
 * A routing trace at rest: Parquet, one row per token occurrence. `experts` is a fixed-length byte array of L * k
 * little-endian uint16 (`np.frombuffer(row, '<u2').reshape(L, k)`), `weights` likewise float32; model facts, source
 * and labels are JSON under the metadata key `smoe.trace`. Numbers are copied in host order: little-endian hosts only.
 */
const metadataKey = 'smoe.trace';
const formatVersion = 1;
const rowsPerGroup = 8192;
const integerColumns = ['request', 'position', 'token', 'phase'] as const;
/** DEFLATE expands at most this much; bounds what a damaged row count can make the reader allocate. */
const largestExpansion = 1032;

/** The Parquet marks at both ends and the length of the metadata. */
const fewestBytes = 12;

interface TraceMetadata {
  version: number;
  model: TraceModel;
  source: string;
  labels: string[];
}

function schemaOf(model: TraceModel, hasWeights: boolean): SchemaElement[] {
  const width = model.layers * model.topK;
  const columns: SchemaElement[] = integerColumns.map((name) => ({ name, type: 'INT32', repetition_type: 'REQUIRED' }));
  columns.push({ name: 'experts', type: 'FIXED_LEN_BYTE_ARRAY', type_length: 2 * width, repetition_type: 'REQUIRED' });
  if (hasWeights)
    columns.push({
      name: 'weights',
      type: 'FIXED_LEN_BYTE_ARRAY',
      type_length: 4 * width,
      repetition_type: 'REQUIRED',
    });
  return [{ name: 'root', num_children: columns.length }, ...columns];
}

/** [n] views of `width` bytes each over a typed array. */
function byteRows(values: Uint16Array | Float32Array, rows: number, width: number): Uint8Array[] {
  return Array.from(
    { length: rows },
    (_, row) => new Uint8Array(values.buffer, values.byteOffset + row * width, width),
  );
}

/**
 * Writes a trace row group by row group to a temporary file beside `path` that takes its name on `finish`, so that a reader
 * never sees half a file. Call `finish` or `abandon` exactly once.
 */
export class TraceWriter {
  readonly #path: string;
  readonly #temporary: string;
  readonly #model: TraceModel;
  readonly #hasWeights: boolean;
  readonly #parquet: ParquetWriter;

  constructor(path: string, model: TraceModel, hasWeights: boolean) {
    validateTraceModel(path, model);
    this.#path = path;
    this.#temporary = `${path}.${process.pid}.tmp`;
    this.#model = model;
    this.#hasWeights = hasWeights;
    this.#parquet = this.#guard(
      () =>
        new ParquetWriter({
          writer: fileWriter(this.#temporary),
          schema: schemaOf(model, hasWeights),
          codec: 'GZIP',
          compressors: { GZIP: (bytes) => gzipSync(bytes, { level: 1 }) },
          statistics: false,
          createdBy: 'speculative-moe',
        }),
    );
  }

  /** Adds rows; the caller keeps requests consecutive and dense over all calls. */
  append(rows: TraceRows): void {
    const width = this.#model.layers * this.#model.topK;
    for (let start = 0; start < rows.length; start += rowsPerGroup) {
      const end = Math.min(start + rowsPerGroup, rows.length);
      const columnData = integerColumns.map((name) => ({
        name,
        data: Int32Array.from(rows[name].subarray(start, end)),
        encoding: 'PLAIN' as const,
      })) as { name: string; data: DecodedArray; encoding: 'PLAIN' }[];
      const experts = rows.experts.subarray(start * width, end * width);
      columnData.push({ name: 'experts', data: byteRows(experts, end - start, 2 * width), encoding: 'PLAIN' });
      if (this.#hasWeights) {
        const weights = rows.weights!.subarray(start * width, end * width);
        columnData.push({ name: 'weights', data: byteRows(weights, end - start, 4 * width), encoding: 'PLAIN' });
      }
      this.#guard(() => this.#parquet.write({ columnData, rowGroupSize: rowsPerGroup }));
    }
  }

  /** Writes the metadata and puts the file in place. `model` may say more than at first, of the same layers and top-k. */
  finish(source: string, labels: string[], model: TraceModel = this.#model): void {
    validateTraceModel(this.#path, model);
    const metadata: TraceMetadata = { version: formatVersion, model, source, labels };
    this.#parquet.kvMetadata = [{ key: metadataKey, value: JSON.stringify(metadata) }];
    this.#guard(() => {
      this.#parquet.finish();
      const file = openSync(this.#temporary, 'r+');
      fsyncSync(file);
      closeSync(file);
      renameSync(this.#temporary, this.#path);
    });
  }

  /** Removes the temporary file. */
  abandon(): void {
    rmSync(this.#temporary, { force: true });
  }

  #guard<T>(action: () => T): T {
    try {
      return action();
    } catch (cause) {
      this.abandon();
      throw new SmoeError('TRACE_WRITE', `${this.#path}: cannot write the trace: ${messageOf(cause)}`, { cause });
    }
  }
}

/** Writes a whole trace; TRACE_* errors. */
export function writeTrace(path: string, trace: RoutingTrace): void {
  validateTrace(path, trace);
  const writer = new TraceWriter(path, trace.model, trace.weights !== undefined);
  writer.append(trace);
  writer.finish(trace.source, trace.labels);
}

/** Reads and validates a trace; any damage is a TRACE_* error. Weights are read only when `weights` is set. */
export async function readTrace(path: string, options: { weights?: boolean } = {}): Promise<RoutingTrace> {
  const { file, parquet } = await openParquet(path);
  const metadata = readMetadata(path, parquet);
  const columns = new Set(parquet.schema.slice(1).map((element) => element.name));
  for (const name of [...integerColumns, 'experts']) {
    if (!columns.has(name))
      throw new SmoeError('TRACE_COLUMNS', `${path}: column ${name} is missing`, { hint: 'see docs/trace-format.md' });
  }
  const trace = allocate(path, file, parquet, metadata, options.weights === true && columns.has('weights'));
  const names = [...integerColumns, 'experts', ...(trace.weights === undefined ? [] : ['weights'])];
  let groupStart = 0;
  for (const group of parquet.row_groups) {
    const groupEnd = groupStart + Number(group.num_rows);
    await readRows(path, file, parquet, names, groupStart, groupEnd, trace);
    groupStart = groupEnd;
  }
  validateTrace(path, trace);
  return trace;
}

async function openParquet(path: string): Promise<{ file: AsyncBuffer; parquet: FileMetaData }> {
  let file: AsyncBuffer;
  try {
    file = await asyncBufferFromFile(path);
  } catch (cause) {
    throw new SmoeError('TRACE_UNREADABLE', `${path}: cannot open the trace: ${messageOf(cause)}`, { cause });
  }
  if (file.byteLength < fewestBytes) {
    throw damaged(path, file.byteLength === 0 ? 'the file is empty' : `${file.byteLength} bytes are too few`);
  }
  try {
    return { file, parquet: await parquetMetadataAsync(file) };
  } catch (cause) {
    throw damaged(path, messageOf(cause), cause);
  }
}

function readMetadata(path: string, parquet: FileMetaData): TraceMetadata {
  const text = parquet.key_value_metadata?.find((entry) => entry.key === metadataKey)?.value;
  if (text === undefined) {
    throw new SmoeError('TRACE_FORMAT', `${path}: a Parquet file, but without the metadata key ${metadataKey}`, {
      hint: 'convert foreign recordings with `smoe trace import`',
    });
  }
  let metadata: TraceMetadata;
  try {
    metadata = JSON.parse(text) as TraceMetadata;
  } catch (cause) {
    throw damaged(path, `metadata ${metadataKey} is not JSON`, cause);
  }
  if (metadata?.version !== formatVersion) {
    throw new SmoeError(
      'TRACE_VERSION',
      `${path}: trace format ${String(metadata?.version)}, this program reads ${formatVersion}`,
    );
  }
  const { model, source, labels } = metadata;
  if (typeof model !== 'object' || model === null || typeof source !== 'string')
    throw damaged(path, `metadata ${metadataKey} lacks model or source`);
  if (!Array.isArray(labels) || labels.some((label) => typeof label !== 'string'))
    throw damaged(path, `metadata ${metadataKey} lacks labels`);
  validateTraceModel(path, model);
  return metadata;
}

/** An empty trace of the file's size, after checking that the file can hold that many rows. */
function allocate(
  path: string,
  file: AsyncBuffer,
  parquet: FileMetaData,
  metadata: TraceMetadata,
  withWeights: boolean,
): RoutingTrace {
  const { model, source, labels } = metadata;
  const length = Number(parquet.num_rows);
  const width = model.layers * model.topK;
  const total = parquet.row_groups.reduce((sum, group) => sum + Number(group.num_rows), 0);
  if (length !== total || parquet.row_groups.some((group) => Number(group.num_rows) < 0)) {
    throw damaged(path, `${length} rows announced, ${total} in the row groups`);
  }
  if (length * 2 * width > file.byteLength * largestExpansion)
    throw damaged(path, `${length} rows cannot fit in ${file.byteLength} bytes`);
  return {
    model,
    source,
    labels,
    length,
    request: new Int32Array(length),
    position: new Int32Array(length),
    token: new Int32Array(length),
    phase: new Uint8Array(length),
    experts: new Uint16Array(length * width),
    weights: withWeights ? new Float32Array(length * width) : undefined,
  };
}

async function readRows(
  path: string,
  file: AsyncBuffer,
  parquet: FileMetaData,
  columns: string[],
  start: number,
  end: number,
  trace: RoutingTrace,
): Promise<void> {
  const filled = new Map<string, number>(columns.map((name) => [name, start]));
  // A throw inside the reader's callback would be an unhandled rejection: keep the first failure and throw it after.
  let failure: unknown;
  const take = (column: string, data: DecodedArray, rowStart: number): void => {
    try {
      if (filled.get(column) !== rowStart || rowStart + data.length > end)
        throw damaged(path, `column ${column}: rows out of place at ${rowStart}`);
      copyColumn(path, column, data, rowStart, trace);
      filled.set(column, rowStart + data.length);
    } catch (cause) {
      failure ??= cause;
    }
  };
  try {
    await parquetRead({
      file,
      metadata: parquet,
      columns,
      rowStart: start,
      rowEnd: end,
      utf8: false,
      compressors: parquetCompressors,
      onChunk: ({ columnName, columnData, rowStart }) => take(columnName, columnData, rowStart),
    });
  } catch (cause) {
    throw damaged(path, `rows ${start} to ${end}: ${messageOf(cause)}`, cause);
  }
  if (failure !== undefined) throw failure;
  for (const [column, row] of filled) {
    if (row !== end) throw damaged(path, `column ${column} ends at row ${row}, expected ${end}`);
  }
}

/** Copies decoded values into the trace from row `start` on; rows of a byte column must have the exact width. */
function copyColumn(path: string, column: string, data: DecodedArray, start: number, trace: RoutingTrace): void {
  if (column === 'experts' || column === 'weights') {
    const target = trace[column]!;
    const width = trace.model.layers * trace.model.topK * target.BYTES_PER_ELEMENT;
    const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength);
    for (let i = 0; i < data.length;) {
      const rows = rowsTogether(data, i, width);
      if (rows === 0) {
        const row: unknown = data[i];
        const held = row instanceof Uint8Array ? row.length : 'no';
        throw damaged(path, `row ${start + i}: ${column} holds ${held} bytes, expected ${width}`);
      }
      const first = data[i] as Uint8Array;
      bytes.set(new Uint8Array(first.buffer, first.byteOffset, rows * width), (start + i) * width);
      i += rows;
    }
    return;
  }
  const target = trace[column as (typeof integerColumns)[number]];
  const most = column === 'phase' ? 255 : 2 ** 31 - 1;
  for (let i = 0; i < data.length; i++) {
    const value = Number(data[i]);
    if (!Number.isInteger(value) || value < -1 || value > most)
      throw damaged(path, `row ${start + i}: ${column} is ${String(data[i])}`);
    target[start + i] = value;
  }
}

/** Rows from `first` on that are `width` bytes each and follow each other in memory, as those of a plain page do: one copy serves them. */
function rowsTogether(data: DecodedArray, first: number, width: number): number {
  const start: unknown = data[first];
  if (!(start instanceof Uint8Array) || start.length !== width) return 0;
  const { buffer, byteOffset } = start;
  let rows = 1;
  for (; first + rows < data.length; rows++) {
    const row: unknown = data[first + rows];
    if (!(row instanceof Uint8Array) || row.length !== width || row.byteOffset !== byteOffset + rows * width) break;
    if (row.buffer !== buffer) break;
  }
  return rows;
}

function damaged(path: string, message: string, cause?: unknown): SmoeError {
  return new SmoeError('TRACE_CORRUPT', `${path}: not a readable trace: ${message}`, {
    hint: 'the file is truncated or damaged; record or copy it again',
    ...(cause === undefined ? {} : { cause }),
  });
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
