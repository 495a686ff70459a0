/**
 * Reads tensors of one safetensors file on demand, straight into the caller's memory. Blocking on purpose: a rank is a
 * dedicated worker, and each opens its own files. Knows nothing of models or shards.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { SmoeError } from '../errors.ts';
import { lengthFieldBytes, parseHeader, parseHeaderLength, truncated, type TensorEntry } from './safetensors-header.ts';

/** Most bytes asked of one read; some systems refuse 2 GiB and more. */
const maximumReadBytes = 1 << 30;

export class SafetensorsFile {
  readonly path: string;
  /** Every tensor, in file order. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly #descriptor: number;
  #closed = false;

  private constructor(path: string, descriptor: number, tensors: ReadonlyMap<string, TensorEntry>) {
    this.path = path;
    this.tensors = tensors;
    this.#descriptor = descriptor;
  }

  /** Opens a file and checks its header whole; no tensor is read. */
  static open(path: string): SafetensorsFile {
    let descriptor: number;
    try {
      descriptor = openSync(path, 'r');
    } catch (error) {
      throw new SmoeError('CHECKPOINT_UNREADABLE', `${path}: cannot be opened (${(error as Error).message})`, {
        hint: 'Check that the file exists and may be read.',
        cause: error,
      });
    }
    try {
      const stat = fstatSync(descriptor);
      if (!stat.isFile()) {
        throw new SmoeError('CHECKPOINT_UNREADABLE', `${path}: not a regular file`, {
          hint: 'Name a safetensors file.',
        });
      }
      const lengthField = new Uint8Array(Math.min(lengthFieldBytes, stat.size));
      readExactly(descriptor, path, lengthField, 0);
      const header = new Uint8Array(parseHeaderLength(path, lengthField, stat.size));
      readExactly(descriptor, path, header, lengthFieldBytes);
      return new SafetensorsFile(path, descriptor, parseHeader(path, header, stat.size));
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
  }

  /**
   * Fills `target` with bytes [byteStart, byteEnd) of a tensor, by default all of it. `target` may be a view of
   * shared or WebAssembly memory and must be exactly as long as the range.
   */
  read(name: string, target: Uint8Array, byteStart = 0, byteEnd?: number): void {
    const entry = this.tensors.get(name);
    if (entry === undefined) {
      throw new SmoeError('CHECKPOINT_MISSING_TENSOR', `${this.path}: no tensor ${JSON.stringify(name)}`, {
        hint: 'The checkpoint is incomplete or of another architecture.',
      });
    }
    const end = byteEnd ?? entry.byteLength;
    const valid =
      Number.isSafeInteger(byteStart) && Number.isSafeInteger(end) && byteStart >= 0 && end <= entry.byteLength;
    if (!valid || end - byteStart !== target.byteLength || this.#closed) {
      const problem = this.#closed
        ? 'the file is closed'
        : `bytes [${byteStart}, ${end}) of ${entry.byteLength} do not fit a target of ${target.byteLength}`;
      throw new SmoeError('CHECKPOINT_BAD_READ', `${this.path}: tensor ${JSON.stringify(name)}: ${problem}`, {
        hint: 'This is a mistake in the calling program.',
      });
    }
    readExactly(this.#descriptor, this.path, target, entry.fileOffset + byteStart);
  }

  /** Safe to call twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#descriptor);
  }
}

/** Fills `target` from a file position; the file may have shrunk since its size was taken. */
function readExactly(descriptor: number, path: string, target: Uint8Array, position: number): void {
  let done = 0;
  while (done < target.byteLength) {
    const wanted = Math.min(maximumReadBytes, target.byteLength - done);
    const count = readSync(descriptor, target, done, wanted, position + done);
    if (count === 0)
      throw truncated(path, `ends at byte ${position + done}, ${target.byteLength - done} bytes too early`);
    done += count;
  }
}
