/**
 * The header of a safetensors file: 8 bytes little-endian length, that many bytes of JSON, then the data section.
 * Untrusted input: everything is checked here once, so that readers may trust the entries. Knows nothing of models.
 * Format: https://github.com/huggingface/safetensors#format
 */
import { SmoeError } from '../errors.ts';

/** Bytes per element of every dtype the format names with whole bytes. */
const elementBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
  C64: 8,
} as const;

export type TensorDtype = keyof typeof elementBytes;

export interface TensorInfo {
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** A tensor and where its bytes start in the file. */
export interface TensorEntry extends TensorInfo {
  readonly fileOffset: number;
}

/** The format's own limit on the JSON's size. */
export const maximumHeaderBytes = 100_000_000;
/** Bytes of the length field in front of the JSON. */
export const lengthFieldBytes = 8;

const damagedHint = 'The file is damaged or not a safetensors file; download or convert it again.';
const truncatedHint = 'The download or copy stopped early; fetch the file again.';

function badHeader(path: string, problem: string, cause?: unknown): SmoeError {
  return new SmoeError('CHECKPOINT_BAD_HEADER', `${path}: ${problem}`, { hint: damagedHint, cause });
}

function badOffsets(path: string, problem: string): SmoeError {
  return new SmoeError('CHECKPOINT_BAD_OFFSETS', `${path}: ${problem}`, { hint: damagedHint });
}

export function truncated(path: string, problem: string): SmoeError {
  return new SmoeError('CHECKPOINT_TRUNCATED', `${path}: ${problem}`, { hint: truncatedHint });
}

/** Length of the JSON, from the file's first 8 bytes; sane and inside the file, so it may be allocated. */
export function parseHeaderLength(path: string, lengthField: Uint8Array, fileBytes: number): number {
  if (fileBytes < lengthFieldBytes || lengthField.byteLength < lengthFieldBytes) {
    throw truncated(path, `${fileBytes} bytes, too short for a safetensors file`);
  }
  const view = new DataView(lengthField.buffer, lengthField.byteOffset, lengthFieldBytes);
  const headerBytes = view.getBigUint64(0, true);
  if (headerBytes < 2n || headerBytes > BigInt(maximumHeaderBytes)) {
    throw badHeader(path, `header length ${headerBytes} is not between 2 and ${maximumHeaderBytes}`);
  }
  if (headerBytes > BigInt(fileBytes - lengthFieldBytes)) {
    throw truncated(path, `header of ${headerBytes} bytes does not fit a file of ${fileBytes}`);
  }
  return Number(headerBytes);
}

/**
 * Checks a whole header and returns its tensors by name, in file order. `header`: the JSON bytes alone; `fileBytes`:
 * size of the whole file. The tensors' ranges must cover the data section exactly once.
 */
export function parseHeader(path: string, header: Uint8Array, fileBytes: number): Map<string, TensorEntry> {
  const fields = parseJsonObject(path, header);
  const dataStart = lengthFieldBytes + header.byteLength;
  const entries: [string, TensorEntry][] = [];
  for (const [name, value] of Object.entries(fields)) {
    if (name !== '__metadata__') entries.push([name, parseEntry(path, name, value, dataStart)]);
  }
  entries.sort(([, a], [, b]) => a.fileOffset - b.fileOffset || a.byteLength - b.byteLength);
  checkCoverage(path, entries, dataStart, fileBytes);
  return new Map(entries);
}

function parseJsonObject(path: string, header: Uint8Array): Record<string, unknown> {
  let text: string;
  let parsed: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
    parsed = JSON.parse(text);
  } catch (error) {
    throw badHeader(path, `header is not JSON (${error instanceof Error ? error.message : String(error)})`, error);
  }
  if (!text.startsWith('{') || typeof parsed !== 'object' || parsed === null) {
    throw badHeader(path, 'header is not a JSON object');
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) throw badHeader(path, `tensor ${JSON.stringify(duplicate)} is listed twice`);
  return parsed as Record<string, unknown>;
}

/** First repeated key of the outermost object of valid JSON, which JSON.parse would silently let the later one win. */
function findDuplicateKey(json: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  // A string at depth 1 is a key when it follows '{' or ',' and a value when it follows ':'.
  let expectKey = false;
  for (let index = 0; index < json.length; index += 1) {
    const character = json[index];
    if (character === '"') {
      const start = index;
      for (index += 1; json[index] !== '"'; index += 1) if (json[index] === '\\') index += 1;
      if (depth !== 1 || !expectKey) continue;
      const key = JSON.parse(json.slice(start, index + 1)) as string;
      if (seen.has(key)) return key;
      seen.add(key);
      expectKey = false;
    } else if (character === '{' || character === '[') {
      depth += 1;
      expectKey = depth === 1;
    } else if (character === '}' || character === ']') {
      depth -= 1;
    } else if (character === ',') {
      expectKey = depth === 1;
    }
  }
  return undefined;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function parseEntry(path: string, name: string, value: unknown, dataStart: number): TensorEntry {
  const label = `tensor ${JSON.stringify(name)}`;
  if (typeof value !== 'object' || value === null) throw badHeader(path, `${label} is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype)) {
    throw badHeader(path, `${label} has unknown dtype ${JSON.stringify(dtype)}`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw badHeader(path, `${label} has a shape that is not a list of non-negative integers`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw badOffsets(path, `${label} has data_offsets that are not two non-negative integers`);
  }
  const [begin, end] = offsets as [number, number];
  let byteLength: number = elementBytes[dtype as TensorDtype];
  for (const size of shape as number[]) {
    byteLength *= size;
    if (!Number.isSafeInteger(byteLength)) throw badHeader(path, `${label} has a shape too large to address`);
  }
  if (end < begin || end - begin !== byteLength) {
    throw badOffsets(
      path,
      `${label} of dtype ${dtype} and shape [${shape}] needs ${byteLength} bytes, its offsets give ${end - begin}`,
    );
  }
  return { dtype: dtype as TensorDtype, shape: shape as number[], byteLength, fileOffset: dataStart + begin };
}

/** `entries` in file order must follow one another without overlap or hole, and end where the file ends. */
function checkCoverage(path: string, entries: [string, TensorEntry][], dataStart: number, fileBytes: number): void {
  let position = dataStart;
  for (const [name, entry] of entries) {
    if (entry.fileOffset !== position) {
      const problem = entry.fileOffset < position ? 'overlaps the tensor before it' : 'leaves a hole before it';
      throw badOffsets(path, `tensor ${JSON.stringify(name)} ${problem}`);
    }
    position += entry.byteLength;
  }
  if (position > fileBytes) throw truncated(path, `tensors end at byte ${position}, the file at ${fileBytes}`);
  if (position < fileBytes) throw badOffsets(path, `${fileBytes - position} bytes after the last tensor`);
}
