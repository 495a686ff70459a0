import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { SmoeError } from '../errors.ts';

/** Writes all files to temporary names, then gives them theirs: a full disk leaves none of them. EXPORT_WRITE. */
export function writeFiles(files: { path: string; text: string }[]): void {
  const temporary = (path: string): string => `${path}.${process.pid}.tmp`;
  try {
    for (const { path, text } of files) writeFileSync(temporary(path), text, { flush: true });
    for (const { path } of files) renameSync(temporary(path), path);
  } catch (cause) {
    for (const { path } of files) rmSync(temporary(path), { force: true });
    throw new SmoeError('EXPORT_WRITE', `cannot write: ${(cause as Error).message}`, {
      hint: 'check the folder, its permissions and the space left',
      cause,
    });
  }
}
