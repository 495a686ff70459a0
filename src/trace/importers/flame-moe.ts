import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type AsyncBuffer,
  asyncBufferFromFile,
  type DecodedArray,
  type FileMetaData,
  parquetMetadataAsync,
  parquetRead,
} from 'hyparquet';
import { SmoeError } from '../../errors.ts';
import { badRecord, badShape, unreadable } from '../bad-record.ts';
import { parquetCompressors } from '../parquet-compressors.ts';
import type { TraceSink } from '../trace-sink.ts';
import { kindOf } from './fields.ts';
import type { ImporterOptions, TraceImporter } from './importer.ts';

const rowsPerRead = 32_768;

/** Parquet files read one after another as one column set. */
interface RowSource {
  path: string;
  file: AsyncBuffer;
  metadata: FileMetaData;
  rows: number;
}

/**
 * FLAME-MoE-Traces: a folder with `samples/NNN.parquet` (token_id) and `actives/iter_NNNN/layer_LL.parquet` (scores, indices: lists
 * of k), where row i of all samples files in order and of every layer file is the same token. The stream is cut into sequences of
 * `sequenceTokens`, which become the requests.
 */
export const flameMoe: TraceImporter = {
  name: 'flame-moe',
  describes: 'FLAME-MoE-Traces folder of one model: samples/ and actives/iter_NNNN/, as Parquet',
  recognises: ({ entries }) => entries !== undefined && entries.includes('actives'),
  async read(path, sink, options) {
    const folder = iterationFolder(path, options.iteration);
    const layers = await Promise.all(filesOf(folder, /^layer_\d+\.parquet$/).map(openRows));
    const samples = await Promise.all(filesOf(join(path, 'samples'), /^\d+\.parquet$/).map(openRows));
    const { rows } = layers[0]!;
    const short = layers.find((layer) => layer.rows !== rows);
    if (short !== undefined) {
      throw badShape(
        short.path,
        `holds ${short.rows} rows, ${layers[0]!.path} ${rows}`,
        'a file is cut off or of another capture',
      );
    }
    const tokens = samples.reduce((sum, source) => sum + source.rows, 0);
    if (tokens < rows)
      throw badShape(join(path, 'samples'), `${tokens} tokens for ${rows} routed rows`, 'samples files are missing');
    await copyRows(sink, layers, samples, options);
  },
};

function iterationFolder(path: string, iteration: number | undefined): string {
  const folder = join(path, 'actives');
  const iterations = namesIn(folder)
    .flatMap((name) => /^iter_(\d+)$/.exec(name)?.[1] ?? [])
    .sort((a, b) => Number(a) - Number(b));
  const chosen = iteration === undefined ? iterations.at(-1) : iterations.find((name) => Number(name) === iteration);
  if (chosen !== undefined) return join(folder, `iter_${chosen}`);
  const there = iterations.length === 0 ? 'no folder iter_NNNN' : `only iterations ${iterations.join(', ')}`;
  throw new SmoeError(
    'TRACE_FORMAT',
    `${folder}: holds ${there}${iteration === undefined ? '' : `, not ${iteration}`}`,
    {
      hint: 'give --iteration, or the folder of one model such as flame-moe-290m',
    },
  );
}

function filesOf(folder: string, pattern: RegExp): string[] {
  const names = namesIn(folder).filter((name) => pattern.test(name));
  if (names.length > 0) return names.sort((a, b) => numberIn(a) - numberIn(b)).map((name) => join(folder, name));
  throw new SmoeError('TRACE_FORMAT', `${folder}: holds no file like ${pattern.source}`, {
    hint: 'fetch the whole folder of the model',
  });
}

function numberIn(name: string): number {
  return Number(/\d+/.exec(name)![0]);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    throw unreadable(folder, error);
  }
}

async function openRows(path: string): Promise<RowSource> {
  let file: AsyncBuffer;
  try {
    file = await asyncBufferFromFile(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    const metadata = await parquetMetadataAsync(file);
    const rows = Number(metadata.num_rows);
    const inGroups = metadata.row_groups.reduce((sum, group) => sum + Number(group.num_rows), 0);
    if (!Number.isSafeInteger(rows) || rows < 0 || rows !== inGroups)
      throw new Error(`${rows} rows announced, ${inGroups} in the row groups`);
    return { path, file, metadata, rows };
  } catch (error) {
    throw damaged(path, error);
  }
}

async function copyRows(
  sink: TraceSink,
  layers: RowSource[],
  samples: RowSource[],
  { sequenceTokens }: ImporterOptions,
): Promise<void> {
  const { rows } = layers[0]!;
  let topK = 0;
  let sampleFile = 0;
  let sampleStart = 0;
  for (let start = 0; start < rows && !sink.full;) {
    while (start >= sampleStart + samples[sampleFile]!.rows) sampleStart += samples[sampleFile++]!.rows;
    const sample = samples[sampleFile]!;
    const end = Math.min(start + rowsPerRead, rows, sampleStart + sample.rows);
    const tokens = await readColumn(sample, 'token_id', start - sampleStart, end - sampleStart);
    const perLayer: { indices: unknown[]; scores: unknown[] }[] = [];
    for (const layer of layers) {
      const indices = await readColumn(layer, 'indices', start, end);
      perLayer.push({ indices, scores: await readColumn(layer, 'scores', start, end) });
    }
    const experts: number[] = [];
    const weights: number[] = [];
    for (let i = 0; i < end - start && !sink.full; i++) {
      const row = start + i;
      for (const [layer, { indices, scores }] of perLayer.entries()) {
        const count = copyList(layers[layer]!, row, 'indices', indices[i], experts, layer * topK);
        if (topK === 0) topK = count;
        const scored = copyList(layers[layer]!, row, 'scores', scores[i], weights, layer * topK);
        if (count !== topK || scored !== topK) {
          throw badShape(
            `${layers[layer]!.path}, row ${row}`,
            `${count} indices and ${scored} scores, ${topK} before`,
            'every token needs the same k',
          );
        }
      }
      const where = (): string => `${sample.path}, row ${row - sampleStart} (row ${row} of the layer files)`;
      if (i === 0) sink.shape(where, layers.length, topK, true);
      if (row % sequenceTokens === 0) sink.beginRequest();
      sink.add(where, row % sequenceTokens, Number(tokens[i]), 0, experts, 0, weights);
    }
    start = end;
  }
}

function copyList(source: RowSource, row: number, column: string, list: unknown, target: number[], at: number): number {
  if (!Array.isArray(list) && !ArrayBuffer.isView(list)) {
    throw badRecord(`${source.path}, row ${row}`, `${column}: expected a list, found ${kindOf(list)}`);
  }
  const values = list as ArrayLike<unknown>;
  for (let i = 0; i < values.length; i++) {
    if (typeof values[i] !== 'number')
      throw badRecord(`${source.path}, row ${row}`, `${column}[${i}]: found ${kindOf(values[i])}`);
    target[at + i] = values[i] as number;
  }
  return values.length;
}

/**
 * Rows [start, end) of one column. One column of one row group per call: of several that are damaged the reader would report the
 * first and leave the others' rejections to nobody.
 */
async function readColumn(source: RowSource, column: string, start: number, end: number): Promise<unknown[]> {
  const { path, file, metadata } = source;
  if (!metadata.schema.some(({ name }) => name === column)) {
    throw new SmoeError('TRACE_COLUMNS', `${path}: column ${column} is missing`, { hint: 'is it a FLAME-MoE file?' });
  }
  const values: unknown[] = [];
  const take = (data: DecodedArray, rowStart: number): void => {
    for (let i = Math.max(0, start - rowStart); i < data.length && rowStart + i < end; i++)
      values[rowStart + i - start] = data[i];
  };
  let groupStart = 0;
  for (const group of metadata.row_groups) {
    const groupEnd = groupStart + Number(group.num_rows);
    const rowStart = Math.max(start, groupStart);
    const rowEnd = Math.min(end, groupEnd);
    groupStart = groupEnd;
    if (rowStart >= rowEnd) continue;
    try {
      await parquetRead({
        file,
        metadata,
        columns: [column],
        rowStart,
        rowEnd,
        utf8: false,
        compressors: parquetCompressors,
        onChunk: (chunk) => take(chunk.columnData, chunk.rowStart),
      });
    } catch (error) {
      throw damaged(`${path}, rows ${rowStart} to ${rowEnd}`, error);
    }
  }
  if (values.length !== end - start)
    throw damaged(path, new Error(`column ${column} ends at row ${start + values.length}, not ${end}`));
  return values;
}

function damaged(where: string, error: unknown): SmoeError {
  return new SmoeError(
    'TRACE_CORRUPT',
    `${where}: not readable as Parquet: ${error instanceof Error ? error.message : String(error)}`,
    {
      hint: 'the file is truncated or damaged: fetch it again; or its codec is not known (Zstandard needs Node.js 22.15 or newer)',
      cause: error,
    },
  );
}
