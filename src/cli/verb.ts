import type { ArgsDef } from 'citty';
import type { Console } from './console.ts';
import type { Flags } from './flags.ts';
import type { ExitStatus } from '../errors.ts';

/** One action of the command line; one file each. `args` are citty's definitions. */
export interface Verb {
  /** Words after `smoe`, such as `trace show`. */
  name: string;
  /** One line for lists. */
  summary: string;
  args: ArgsDef;
  /** Whether a command to run follows after `--`. */
  takesCommand?: boolean;
  /** Command lines without the leading `smoe `, with what they do. */
  examples: { command: string; does: string }[];
  run(context: VerbContext): Promise<ExitStatus>;
}

export interface VerbContext {
  flags: Flags;
  console: Console;
  /** The words after `--` of a verb that takes a command. */
  command: string[];
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
}
