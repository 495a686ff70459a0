import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { SmoeError } from '../../errors.ts';
import { badRecord, badShape, unreadable } from '../bad-record.ts';
import type { TraceSink } from '../trace-sink.ts';
import type { TraceImporter } from './importer.ts';
import { type Batch, compact, type CompactPass, joinRanks, unfilled } from './recorder-batches.ts';
import { RequestLinker, type RequestRow } from './recorder-requests.ts';
import { readRecorderDumps } from './recorder-stream.ts';

/** What all rank files of a recording say together. L = layers, dense ones too. */
interface Recording {
  layers: number;
  physical: number;
  /** [L][physical] logical expert of each */
  map: Int32Array;
  /** By number, passes of all ranks. */
  passes: Map<number, CompactPass[]>;
}

/**
 * Dumps of SGLang's expert distribution recorder in mode `per_token` (srt/eplb/expert_distribution.py), one file per rank, or a folder of
 * them: rank files are put together pass by pass, physical experts turned logical, requests told apart by position.
 */
export const sglangRecorder: TraceImporter = {
  name: 'sglang-recorder',
  describes: 'per_token dumps of SGLang’s expert distribution recorder, a .pt file or the folder of all ranks’',
  recognises: ({ entries, bytes }) =>
    entries === undefined
      ? bytes.toString('latin1', 0, 4) === 'PK\u0003\u0004'
      : entries.some((name) => name.endsWith('.pt')),
  async read(path, sink, { python, signal }) {
    const recording = await readRecording(path, python, signal);
    const linkers = new Map<number, RequestLinker>();
    let foreignTokens = 0;
    for (const [, passes] of [...recording.passes].sort(([a], [b]) => a - b)) {
      const joined = joinRanks(path, passes);
      foreignTokens += joined.foreignTokens;
      for (const batch of joined.batches) {
        const linker = linkers.get(batch.group) ?? new RequestLinker();
        linkers.set(batch.group, linker);
        linker.add(path, batch);
      }
    }
    addRequests(path, sink, recording, [...linkers.values()]);
    addNotes(sink, foreignTokens, [...linkers.values()]);
  },
};

async function readRecording(path: string, python: string, signal: AbortSignal | undefined): Promise<Recording> {
  const files = dumpFiles(path);
  const passes = new Map<number, CompactPass[]>();
  let recording: Recording | undefined;
  let index = 0;
  for await (const file of readRecorderDumps(files, python, signal)) {
    const name = files[index++]!;
    if (file.kind === 'stat') {
      throw new SmoeError(
        'TRACE_COUNTS_ONLY',
        `${name}: counts of ${file.layers} layers and ${file.experts} experts, recorded in mode stat: which experts a token used together is not in them`,
        {
          hint: 'record with --expert-distribution-recorder-mode per_token; SGLang itself takes counts, --init-expert-location FILE.pt, and balances load with them',
        },
      );
    }
    recording ??= { layers: file.layers, physical: file.physical, map: file.map, passes };
    if (Buffer.compare(bytesOf(recording.map), bytesOf(file.map)) !== 0) {
      throw badRecord(
        name,
        `places experts otherwise than ${files[0]}`,
        'import one recording at a time, made without --enable-eplb: it moves experts while they are recorded',
      );
    }
    for await (const pass of file.passes) {
      const ofPass = passes.get(pass.pass) ?? [];
      passes.set(pass.pass, ofPass);
      ofPass.push(compact(pass, file.layers));
    }
  }
  return recording!;
}

function dumpFiles(path: string): string[] {
  let files = [path];
  try {
    if (statSync(path).isDirectory()) {
      files = readdirSync(path)
        .filter((name) => name.endsWith('.pt'))
        .sort()
        .map((name) => join(path, name));
    }
  } catch (error) {
    throw unreadable(path, error);
  }
  if (files.length > 0) return files;
  throw new SmoeError('TRACE_EMPTY', `${path}: holds no .pt file`, {
    hint: 'SGLang writes dumps to the folder of SGLANG_EXPERT_DISTRIBUTION_RECORDER_DIR, /tmp when not set',
  });
}

function addRequests(path: string, sink: TraceSink, recording: Recording, linkers: RequestLinker[]): void {
  const requests = linkers.flatMap((linker) => linker.requests);
  const batches = new Set(requests.flatMap(({ rows }) => rows.map(({ batch }) => batch)));
  const columns = Math.max(0, ...Array.from(batches, (batch) => batch.columns));
  const topK = sink.known.topK ?? columns;
  if (columns !== topK && batches.size > 0) {
    throw badShape(
      path,
      `${columns} experts per token were recorded, ${topK} expected`,
      'give the right --experts-per-token; where the model’s shared experts were recorded too, start the server with --disable-shared-experts-fusion',
    );
  }
  const moeLayers = filledLayers(batches, recording.layers, columns);
  const experts = new Int32Array(moeLayers.length * topK);
  for (const { rows } of requests) {
    if (sink.full) return;
    sink.beginRequest();
    for (const row of rows) {
      const position = row.batch.positions[row.row]!;
      const where = (): string => `${path}, ${describe(row)}`;
      logicalExperts(where, recording, moeLayers, row, experts);
      sink.shape(where, moeLayers.length, topK, false);
      sink.add(where, position, row.batch.inputIds[row.row]!, row.phase, experts);
      if (sink.full) return;
    }
  }
}

/** Layers that any token has experts in; the others are dense. */
function filledLayers(batches: Set<Batch>, layers: number, columns: number): number[] {
  const filled = new Uint8Array(layers);
  for (const { experts } of batches) {
    for (let at = 0; at < experts.length; at += columns) {
      if (experts[at] !== unfilled) filled[(at / columns) % layers] = 1;
    }
  }
  return Array.from(filled.keys()).filter((layer) => filled[layer] === 1);
}

/** @param target [MoE layers][k] */
function logicalExperts(
  where: () => string,
  { layers, physical, map }: Recording,
  moeLayers: number[],
  { batch, row }: RequestRow,
  target: Int32Array,
): void {
  const { experts, columns } = batch;
  let to = 0;
  for (const layer of moeLayers) {
    const at = (row * layers + layer) * columns;
    for (let i = 0; i < columns; i++) {
      const expert = experts[at + i]!;
      if (expert >= physical) {
        throw badRecord(
          where(),
          `layer ${layer}: ${expert === unfilled ? 'no experts' : `expert ${expert} of ${physical}`}`,
          'the recording is incomplete, or has the model’s shared experts in it: start the server with --disable-shared-experts-fusion',
        );
      }
      target[to++] = map[layer * physical + expert]!;
    }
  }
}

function describe({ batch, row }: RequestRow): string {
  return `attention group of rank ${batch.group}, position ${batch.positions[row]}`;
}

function addNotes(sink: TraceSink, foreignTokens: number, linkers: RequestLinker[]): void {
  const sum = (field: 'ambiguousTokens' | 'otherTokens'): number =>
    linkers.reduce((total, linker) => total + linker[field], 0);
  const [ambiguous, other] = [sum('ambiguousTokens'), sum('otherTokens')];
  sink.notes.push('the recorder keeps no request ids: requests were told apart by position and order');
  if (ambiguous > 0) sink.notes.push(`${ambiguous} generated tokens could belong to another request as well`);
  if (other > 0) sink.notes.push(`${other} tokens of drafts, which may have been rejected, are left out`);
  if (foreignTokens > 0) {
    sink.notes.push(
      `${foreignTokens} tokens are left out: without an all-to-all back end under data-parallel attention only the first group’s rows are its own`,
    );
  }
}

function bytesOf(values: Int32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
