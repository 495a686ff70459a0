import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ExitStatus, SmoeError } from '../errors.ts';
import { readJsonFile } from '../model/json-file.ts';
import { SafetensorsFile } from '../model/safetensors.ts';
import type { TensorEntry } from '../model/safetensors-header.ts';
import type { ExportModel } from './export-model.ts';

/** Bytes moved at once. */
const blockBytes = 1 << 23;
/** Other forms of the weights: copied, they would carry the old numbers. */
const otherWeights = /\.(safetensors|bin|pt|pth|gguf|msgpack|h5|onnx)$|\.index\.json$/;

export interface RenumberOptions {
  model: ExportModel;
  /** [L] of the MoE layers: [N] expert that position p takes */
  expertOfPosition: number[][];
  /** Further files for the new directory. */
  extra: { name: string; text: string }[];
  signal: AbortSignal;
  onProgress: (bytes: number, total: number) => void;
}

/** What happens to a tensor: another name, or its rows in another order. */
interface Change {
  name: string;
  /** [N] row that row p comes from */
  rows?: number[];
}

/**
 * Copies a checkpoint in Hugging Face layout so that position p of every MoE layer is the expert the plan puts there: expert tensors take
 * other names, rows of routers and of tensors that hold all experts change order, nothing else changes and nothing is computed. An engine
 * that gives rank r the r-th block of experts then runs the plan. The directory appears complete or not at all. EXPORT_* and CHECKPOINT_*
 * errors.
 */
export async function renumberCheckpoint(directory: string, out: string, options: RenumberOptions): Promise<void> {
  if (existsSync(out)) {
    throw new SmoeError('EXPORT_EXISTS', `${out}: is there already`, {
      hint: 'remove it, or name another directory',
      exitStatus: ExitStatus.usage,
    });
  }
  const { model } = options;
  if (model.groups > 1) {
    throw new SmoeError(
      'EXPORT_INFEASIBLE',
      `routing is limited to ${model.groups} groups of experts by number: renumbering would change which are chosen`,
      {
        hint: "use an engine's placement file, which maps experts after they are chosen",
        exitStatus: ExitStatus.noFeasiblePlan,
      },
    );
  }
  const files = weightFiles(directory).map((name) => SafetensorsFile.open(join(directory, name)));
  const temporary = `${out}.${process.pid}.tmp`;
  try {
    const changes = changesOf(files, options);
    const total = sum(files.flatMap(({ tensors }) => Array.from(tensors.values(), ({ byteLength }) => byteLength)));
    assertSpace(dirname(out), total);
    mkdirSync(temporary, { recursive: true });
    let done = 0;
    for (const file of files) {
      for await (const bytes of copyFile(file, join(temporary, basename(file.path)), changes)) {
        if (options.signal.aborted)
          throw new SmoeError('INTERRUPTED', 'interrupted', { exitStatus: ExitStatus.interrupted });
        options.onProgress((done += bytes), total);
      }
    }
    copyRest(directory, temporary);
    writeIndex(directory, temporary, changes);
    for (const { name, text } of options.extra) writeFileSync(join(temporary, name), text, { flush: true });
    verify(files, temporary, changes);
    renameSync(temporary, out);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    if (error instanceof SmoeError) throw error;
    throw new SmoeError('EXPORT_WRITE', `${out}: cannot write: ${(error as Error).message}`, {
      hint: 'check the folder, its permissions and the space left',
      cause: error,
    });
  } finally {
    for (const file of files) file.close();
  }
}

/** Of the index where there is one; nothing else in the directory is weights of the model. */
function weightFiles(directory: string): string[] {
  if (existsSync(join(directory, 'model.safetensors'))) return ['model.safetensors'];
  const index = readJsonFile(join(directory, 'model.safetensors.index.json')) as { weight_map?: unknown } | undefined;
  const map = typeof index?.weight_map === 'object' && index.weight_map !== null ? index.weight_map : {};
  const names = [...new Set(Object.values(map) as unknown[])].sort();
  if (names.length > 0 && names.every((name) => typeof name === 'string' && basename(name) === name))
    return names as string[];
  throw new SmoeError('CHECKPOINT_NO_WEIGHTS', `${directory}: neither model.safetensors nor a usable index of shards`, {
    hint: 'name the directory of the checkpoint, in safetensors, with --model',
  });
}

/** By name, every tensor that changes; EXPORT_CHECKPOINT unless each MoE layer's router and experts are all found. */
function changesOf(files: SafetensorsFile[], { model, expertOfPosition }: RenumberOptions): Map<string, Change> {
  const changes = new Map<string, Change>();
  const routers = new Set<number>();
  const experts = new Map<number, Set<number>>();
  for (const { path, tensors } of files) {
    for (const [name, { shape }] of tensors) {
      const layer = Number(/(?:^|\.)layers\.(\d+)\./.exec(name)?.[1] ?? -1);
      const order = expertOfPosition[model.moeLayers.indexOf(layer)];
      if (order === undefined) continue;
      const single = /^(.*\.experts\.)(\d+)(\..+)$/.exec(name);
      const perExpert = shape[0] === model.experts || (shape[0] === 1 && shape[1] === model.experts);
      if (single !== null) {
        const expert = Number(single[2]);
        const position = order.indexOf(expert);
        if (position < 0)
          throw unknownTensor(path, name, `is of expert ${expert}, config.json has ${model.experts} experts`);
        changes.set(name, { name: `${single[1]}${position}${single[3]}` });
        experts.set(layer, (experts.get(layer) ?? new Set()).add(expert));
      } else if (/\.experts\.[a-z_]/.test(name)) {
        if (!perExpert) throw unknownTensor(path, name, 'holds experts, but not one per row');
        changes.set(name, { name, rows: order });
        experts.set(layer, new Set(order));
      } else if (/\.(gate|router)\.|e_score_correction_bias|expert_bias/.test(name)) {
        if (!perExpert)
          throw unknownTensor(path, name, 'looks like a part of the router, but has not one row per expert');
        changes.set(name, { name, rows: order });
        if (/\.(gate|router)\..*weight$/.test(name)) routers.add(layer);
      }
    }
  }
  for (const layer of model.moeLayers) {
    const found = experts.get(layer)?.size ?? 0;
    if (!routers.has(layer) || found !== model.experts) {
      throw new SmoeError(
        'EXPORT_CHECKPOINT',
        `layer ${layer}: ${routers.has(layer) ? '' : 'no router and '}${found} of ${model.experts} experts found`,
        { hint: "use an engine's placement file: this checkpoint names its tensors in a way not known here" },
      );
    }
  }
  return changes;
}

function unknownTensor(path: string, name: string, problem: string): SmoeError {
  return new SmoeError('EXPORT_CHECKPOINT', `${path}: tensor ${name} ${problem}`, {
    hint: "use an engine's placement file: how to renumber this checkpoint is not known here",
  });
}

/** Same order, same offsets, new header; yields the bytes written since. */
async function* copyFile(
  file: SafetensorsFile,
  path: string,
  changes: Map<string, Change>,
): AsyncGenerator<number, void, undefined> {
  const entries = [...file.tensors];
  const header = Buffer.from(headerOf(entries, changes));
  const output = openSync(path, 'wx');
  try {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    writeAll(output, length);
    writeAll(output, header);
    for (const [name, { byteLength, shape }] of entries) {
      const rows = changes.get(name)?.rows;
      const rowBytes = rows === undefined ? byteLength : byteLength / (shape[0] === 1 ? shape[1]! : shape[0]!);
      for (const row of rows ?? [0]) {
        for (let at = row * rowBytes; at < (row + 1) * rowBytes; at += blockBytes) {
          const block = new Uint8Array(Math.min(blockBytes, (row + 1) * rowBytes - at));
          file.read(name, block, at, at + block.length);
          writeAll(output, block);
        }
      }
      yield byteLength;
      // Lets Ctrl-C be seen between tensors.
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    closeSync(output);
  }
}

/** Offsets count from the end of the header, which is padded to 8 bytes as the format's writers do. */
function headerOf(entries: [string, TensorEntry][], changes: Map<string, Change>): string {
  let offset = 0;
  const fields = entries.map(([name, { dtype, shape, byteLength }]) => {
    const start = offset;
    offset += byteLength;
    return [changes.get(name)?.name ?? name, { dtype, shape, data_offsets: [start, offset] }];
  });
  const text = JSON.stringify({ __metadata__: { format: 'pt' }, ...(Object.fromEntries(fields) as object) });
  return text.padEnd(Math.ceil(Buffer.byteLength(text) / 8) * 8);
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
}

function copyRest(directory: string, target: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isFile() && !otherWeights.test(entry.name))
      copyFileSync(join(directory, entry.name), join(target, entry.name));
  }
}

function writeIndex(directory: string, target: string, changes: Map<string, Change>): void {
  const name = 'model.safetensors.index.json';
  const index = readJsonFile(join(directory, name)) as { weight_map: Record<string, string> } | undefined;
  if (index === undefined || existsSync(join(target, 'model.safetensors'))) return;
  const entries = Object.entries(index.weight_map).map(([tensor, file]) => [changes.get(tensor)?.name ?? tensor, file]);
  writeFileSync(
    join(target, name),
    `${JSON.stringify({ ...index, weight_map: Object.fromEntries(entries) as unknown }, undefined, 2)}\n`,
  );
}

/** Reads the copy back: its headers, and the first bytes of every row or tensor that moved. */
function verify(files: SafetensorsFile[], target: string, changes: Map<string, Change>): void {
  for (const file of files) {
    const copy = SafetensorsFile.open(join(target, basename(file.path)));
    try {
      if (copy.tensors.size !== file.tensors.size) throw damagedCopy(copy.path, 'lacks tensors');
      for (const [name, { rows, name: newName }] of changes) {
        const entry = file.tensors.get(name);
        if (entry === undefined) continue;
        const rowBytes = entry.byteLength / (rows?.length ?? 1);
        (rows ?? [0]).forEach((from, to) => {
          const bytes = Math.min(64, rowBytes);
          const [before, after] = [new Uint8Array(bytes), new Uint8Array(bytes)];
          file.read(name, before, from * rowBytes, from * rowBytes + bytes);
          copy.read(newName, after, to * rowBytes, to * rowBytes + bytes);
          if (Buffer.compare(before, after) !== 0) throw damagedCopy(copy.path, `${newName} differs from ${name}`);
        });
      }
    } finally {
      copy.close();
    }
  }
}

function damagedCopy(path: string, problem: string): SmoeError {
  return new SmoeError('EXPORT_WRITE', `${path}: ${problem} when read back`, {
    hint: 'check the disk, and export again',
  });
}

function assertSpace(directory: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(existsSync(directory) ? directory : '.');
  if (bavail * bsize > bytes) return;
  throw new SmoeError('EXPORT_WRITE', `${directory}: ${bytes} bytes are needed, ${bavail * bsize} are free`, {
    hint: 'free some space, or name a directory on another disk',
  });
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
