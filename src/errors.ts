/** Exit status of the command line for a class of failure; see docs/architecture.md. */
export const ExitStatus = { done: 0, failed: 1, usage: 2, noFeasiblePlan: 3, interrupted: 130 } as const;
export type ExitStatus = (typeof ExitStatus)[keyof typeof ExitStatus];

/**
 * The one error type a user of this project meets: `code` is stable and machine-readable, the
 * message says what was wrong and where, `hint` says what to do about it.
 */
export class SmoeError extends Error {
  readonly code: string;
  readonly hint: string | undefined;
  readonly exitStatus: ExitStatus;

  constructor(
    code: string,
    message: string,
    options: { hint?: string; exitStatus?: ExitStatus; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SmoeError';
    this.code = code;
    this.hint = options.hint;
    this.exitStatus = options.exitStatus ?? ExitStatus.failed;
  }
}

/** An error as it crosses a thread or process boundary. */
export interface SerializedError {
  code: string;
  message: string;
  hint?: string;
  exitStatus: ExitStatus;
  stack?: string;
}

/** Flattens any thrown value for another thread; unknown errors get the code `INTERNAL`. */
export function serializeError(error: unknown): SerializedError {
  if (error instanceof SmoeError) {
    const { code, message, hint, exitStatus, stack } = error;
    return {
      code,
      message,
      exitStatus,
      ...(hint === undefined ? {} : { hint }),
      ...(stack === undefined ? {} : { stack }),
    };
  }
  const asError = error instanceof Error ? error : new Error(String(error));
  return {
    code: 'INTERNAL',
    message: asError.message,
    exitStatus: ExitStatus.failed,
    ...(asError.stack === undefined ? {} : { stack: asError.stack }),
  };
}

/** The inverse of `serializeError`; `where` names the thread or rank it came from. */
export function deserializeError(serialized: SerializedError, where: string): SmoeError {
  const error = new SmoeError(serialized.code, `${where}: ${serialized.message}`, {
    exitStatus: serialized.exitStatus,
    ...(serialized.hint === undefined ? {} : { hint: serialized.hint }),
  });
  if (serialized.stack !== undefined) error.stack = `${error.stack}\n  at ${where}: ${serialized.stack}`;
  return error;
}
