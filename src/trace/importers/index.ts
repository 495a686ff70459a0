import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { SmoeError } from '../../errors.ts';
import { unreadable } from '../bad-record.ts';
import { type KnownModel, type SinkReport, TraceSink } from '../trace-sink.ts';
import { chaos } from './chaos.ts';
import { flameMoe } from './flame-moe.ts';
import { genericJsonl } from './generic-jsonl.ts';
import { defaultImporterOptions, type ImporterOptions, type InputHead, type TraceImporter } from './importer.ts';
import { llamaCpp } from './llama-cpp.ts';
import { sglang } from './sglang.ts';
import { sglangRecorder } from './sglang-recorder.ts';
import { vllm } from './vllm.ts';
import { vllmLogger } from './vllm-logger.ts';

/** Every foreign format, in the order in which they are tried; adding one adds a line here. */
export const importers: readonly TraceImporter[] = [
  llamaCpp,
  flameMoe,
  vllmLogger,
  genericJsonl,
  sglang,
  vllm,
  sglangRecorder,
  chaos,
];

const headBytes = 65_536;

export interface ImportOptions {
  /** A name of `importers`; found out when undefined. */
  format?: string;
  model: KnownModel;
  /** What the trace says of itself; the path when undefined. */
  source?: string;
  /** Stop after so many rows. */
  mostRows?: number;
  importer?: Partial<ImporterOptions>;
}

export interface ImportReport extends SinkReport {
  format: string;
}

/** Converts a foreign recording to a trace file. Nothing is left behind when it fails or is interrupted; TRACE_* errors name file and record. */
export async function importTrace(path: string, out: string, options: ImportOptions): Promise<ImportReport> {
  const head = readHead(path);
  const importer = options.format === undefined ? recognise(path, head) : importerNamed(options.format);
  const sink = new TraceSink(out, options.model, options.mostRows, options.importer?.signal);
  try {
    await importer.read(path, sink, { ...defaultImporterOptions, ...options.importer });
    return { format: importer.name, ...sink.finish(options.source ?? path) };
  } catch (error) {
    sink.abandon();
    throw error;
  }
}

export function importerNamed(name: string): TraceImporter {
  const found = importers.find((importer) => importer.name === name);
  if (found !== undefined) return found;
  throw new SmoeError('TRACE_FORMAT', `no format named ${name}`, {
    hint: `one of: ${importers.map((importer) => importer.name).join(', ')}`,
  });
}

/** The format an input looks like, or TRACE_FORMAT. */
export function recognise(path: string, head: InputHead = readHead(path)): TraceImporter {
  if (head.entries === undefined && head.bytes.length === 0) {
    throw new SmoeError('TRACE_EMPTY', `${path}: the file is empty`, { hint: 'record or fetch it again' });
  }
  const found = importers.find((importer) => importer.recognises(head));
  if (found !== undefined) return found;
  const own = head.bytes.toString('latin1', 0, 4) === 'PAR1';
  throw new SmoeError(
    'TRACE_FORMAT',
    `${path}: ${own ? 'a Parquet file, which no importer reads by itself' : 'no known format'}`,
    {
      hint: own
        ? 'a trace of this project needs no import; of FLAME-MoE name the folder'
        : `name it with --format: ${importers.map(({ name }) => name).join(', ')}`,
    },
  );
}

export function readHead(path: string): InputHead {
  try {
    if (statSync(path).isDirectory()) {
      const entries = readdirSync(path, { recursive: true, encoding: 'utf8' });
      return { entries, bytes: Buffer.alloc(0), text: '' };
    }
    const file = openSync(path, 'r');
    try {
      const buffer = Buffer.alloc(headBytes);
      const bytes = buffer.subarray(0, readSync(file, buffer, 0, headBytes, 0));
      return { entries: undefined, bytes, text: bytes.toString('utf8') };
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw unreadable(path, error);
  }
}
