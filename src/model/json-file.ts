/** Reads a small JSON file of a checkpoint, with errors that name the file. */
import { readFileSync, statSync } from 'node:fs';
import { SmoeError } from '../errors.ts';

/** Largest JSON file read whole; the biggest real ones (tokenizer.json) are about 30 MB. */
const maximumBytes = 200_000_000;

/** Parsed content, or undefined when there is no such file. */
export function readJsonFile(path: string): unknown {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  if (!stat.isFile() || stat.size > maximumBytes) {
    throw new SmoeError('CHECKPOINT_UNREADABLE', `${path}: not a regular file under ${maximumBytes} bytes`, {
      hint: 'Check the checkpoint directory.',
    });
  }
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new SmoeError('CHECKPOINT_BAD_JSON', `${path}: ${(error as Error).message}`, {
      hint: 'The file is damaged; download it again.',
      cause: error,
    });
  }
}
