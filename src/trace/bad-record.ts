import { SmoeError } from '../errors.ts';

/** TRACE_BAD_RECORD: something a foreign recording may not hold. `where` names file and line, row or record. */
export function badRecord(
  where: string,
  problem: string,
  hint: string = 'correct or leave out this record',
): SmoeError {
  return new SmoeError('TRACE_BAD_RECORD', `${where}: ${problem}`, { hint });
}

/** TRACE_UNREADABLE: the file system said no. */
export function unreadable(path: string, cause: unknown): SmoeError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SmoeError('TRACE_UNREADABLE', `${path}: cannot be read: ${reason}`, {
    hint: 'check the path and its permissions',
    cause,
  });
}

/** TRACE_TRUNCATED: the data ends in the middle of something. */
export function truncated(where: string, problem: string): SmoeError {
  return new SmoeError('TRACE_TRUNCATED', `${where}: ${problem}`, {
    hint: 'the recording was cut off; copy it again or record it anew',
  });
}

/** TRACE_SHAPE: layers or experts per token are unknown or change within the data. */
export function badShape(where: string, problem: string, hint: string): SmoeError {
  return new SmoeError('TRACE_SHAPE', `${where}: ${problem}`, { hint });
}
