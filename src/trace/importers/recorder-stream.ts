import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { SmoeError } from '../../errors.ts';
import { badRecord, truncated } from '../bad-record.ts';

/** Compiled, this file is dist/src/trace/importers/recorder-stream.js. */
const script = fileURLToPath(new URL('../../../../integrations/sglang-recorder/read_recorder.py', import.meta.url));

/** More than any dump of a real server; what is beyond is damage. */
const mostLayers = 4096;
const mostExperts = 65_536;
const mostTokens = 1 << 24;
const noSegments = 0xff_ff_ff_ff;

/** One forward pass as one rank recorded it. T = tokens, L = layers (dense ones too), C = columns filled. */
export interface RecordedPass {
  rank: number;
  pass: number;
  /** sglang.srt.model_executor.forward_batch_info.ForwardMode */
  mode: number;
  /** [T] */
  inputIds: Int32Array;
  positions: Int32Array;
  /** Tokens of each request in a prefill batch; undefined in decoding. */
  segments: Int32Array | undefined;
  columns: number;
  /** [L][T][C] physical experts, -1 where not filled */
  experts: Int32Array;
}

/** One dump file. `per_token` passes are read as they come; a `stat` dump has counts instead. */
export type RecordedFile =
  | {
      kind: 'per_token';
      layers: number;
      physical: number;
      /** [L][physical] logical expert of each */
      map: Int32Array;
      passes: AsyncGenerator<RecordedPass>;
    }
  | { kind: 'stat'; layers: number; experts: number; counts: Float64Array };

/**
 * The dumps, through a Python program that loads them with PyTorch and `weights_only=True`. Each file's passes must be read before the
 * next file. TRACE_PYTHON where Python or PyTorch is missing, TRACE_BAD_RECORD for a dump that is not one.
 */
export async function* readRecorderDumps(
  paths: string[],
  python: string,
  signal?: AbortSignal,
): AsyncGenerator<RecordedFile> {
  const child = spawn(python, [script, ...paths], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(signal === undefined ? {} : { signal }),
  });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint = (complaint + text).slice(-20_000)));
  const ended = new Promise<SmoeError | undefined>((resolve) => {
    child.on('error', (error) => resolve(notStarted(python, error)));
    child.on('close', (status) => resolve(status === 0 ? undefined : failure(python, complaint)));
  });
  const stream = new StreamCursor(child.stdout);
  try {
    for (const path of paths) {
      const magic = await stream.maybe(4);
      if (magic === undefined) break;
      if (magic.toString('latin1') !== 'SMRD') throw badRecord(path, 'the reading program answered something else');
      const [version, kind, layers, experts] = await stream.words(path, 4);
      if (version !== 1 || layers! < 1 || layers! > mostLayers || experts! < 1 || experts! > mostExperts)
        throw badRecord(path, `${layers} layers of ${experts} experts`);
      if (kind === 1) {
        const bytes = await stream.take(path, 8 * layers! * experts!);
        const counts = Float64Array.from({ length: layers! * experts! }, (_, i) =>
          Number(bytes.readBigUInt64LE(8 * i)),
        );
        yield { kind: 'stat', layers: layers!, experts: experts!, counts };
      } else {
        const map = await stream.int32s(path, layers! * experts!);
        const passes = readPasses(stream, path, layers!);
        yield { kind: 'per_token', layers: layers!, physical: experts!, map, passes };
      }
    }
    const error = await ended;
    if (error !== undefined) throw error;
  } catch (error) {
    // The end of the stream is a symptom; the program says why.
    if (error instanceof SmoeError && error.code === 'TRACE_TRUNCATED') throw (await ended) ?? error;
    throw error;
  } finally {
    child.kill();
  }
}

async function* readPasses(stream: StreamCursor, path: string, layers: number): AsyncGenerator<RecordedPass> {
  while ((await stream.take(path, 1))[0] === 1) {
    const [rank, pass, mode, tokens, segments, columns] = await stream.words(path, 6);
    if (tokens! > mostTokens || columns! > 255 || (segments! !== noSegments && segments! > mostTokens))
      throw badRecord(path, `pass ${pass}: ${tokens} tokens with ${columns} experts each`);
    yield {
      rank: rank! | 0,
      pass: pass! | 0,
      mode: mode! | 0,
      inputIds: await stream.int32s(path, tokens!),
      positions: await stream.int32s(path, tokens!),
      segments: segments! === noSegments ? undefined : await stream.int32s(path, segments!),
      columns: columns!,
      experts: await stream.int32s(path, layers * tokens! * columns!),
    };
  }
}

function notStarted(python: string, error: Error): SmoeError {
  if (error.name === 'AbortError') return new SmoeError('INTERRUPTED', 'interrupted', { exitStatus: 130 });
  return new SmoeError('TRACE_PYTHON', `${python} cannot be started: ${error.message}`, {
    hint: 'dumps are read by Python with PyTorch: name it with --python or SMOE_PYTHON',
    cause: error,
  });
}

function failure(python: string, complaint: string): SmoeError {
  const [, kind, message] = /^smoe-recorder (\w+) (.*)$/m.exec(complaint) ?? [];
  if (kind === 'TORCH') {
    return new SmoeError('TRACE_PYTHON', message!, {
      hint: 'name a Python that has it, such as the server’s, with --python or SMOE_PYTHON',
    });
  }
  if (kind !== undefined)
    return badRecord(message!, 'not a dump that can be read', 'copy the dump again, or record anew');
  return new SmoeError('TRACE_PYTHON', `${python} failed: ${complaint.trim().split('\n').at(-1) ?? ''}`, {
    hint: 'Python 3.9 or newer with PyTorch reads the dumps: name it with --python or SMOE_PYTHON',
  });
}

/** Little-endian reading of a pipe. */
class StreamCursor {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stream: AsyncIterable<Buffer>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** Undefined at the end of the stream. */
  async maybe(bytes: number): Promise<Buffer | undefined> {
    if (this.#rest.length < bytes) {
      const parts = [this.#rest];
      let length = this.#rest.length;
      while (length < bytes) {
        const { done, value } = await this.#chunks.next();
        if (done === true) return undefined;
        parts.push(value);
        length += value.length;
      }
      this.#rest = Buffer.concat(parts);
    }
    const taken = this.#rest.subarray(0, bytes);
    this.#rest = this.#rest.subarray(bytes);
    return taken;
  }

  async take(path: string, bytes: number): Promise<Buffer> {
    const taken = await this.maybe(bytes);
    if (taken === undefined) throw truncated(path, `ends ${bytes} bytes too early`);
    return taken;
  }

  async words(path: string, count: number): Promise<number[]> {
    const bytes = await this.take(path, 4 * count);
    return Array.from({ length: count }, (_, i) => bytes.readUInt32LE(4 * i));
  }

  async int32s(path: string, count: number): Promise<Int32Array> {
    const bytes = await this.take(path, 4 * count);
    const values = new Int32Array(count);
    for (let i = 0; i < count; i++) values[i] = bytes.readInt32LE(4 * i);
    return values;
  }
}
