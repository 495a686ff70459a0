/** Commands of the machine, run to their end. Synchronous, so that no signal can come between a command and its undoing. */
import { spawnSync } from 'node:child_process';
import { SmoeError } from '../errors.ts';

/** Where Debian and others keep `ip` and `tc`, on the PATH of root only. */
export const systemPath: string = `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`;

export interface CommandResult {
  /** Undefined when the program is not there. */
  status: number | null | undefined;
  stdout: string;
  stderr: string;
}

/** A process group of its own: Ctrl-C in a terminal goes to this process, which then decides, not to `ip` in the middle. */
export function tryCommand(argv: string[]): CommandResult {
  const options = {
    encoding: 'utf8',
    detached: true,
    env: { ...process.env, PATH: systemPath },
    timeout: 20_000,
  } as const;
  const { status, stdout, stderr, error } = spawnSync(argv[0]!, argv.slice(1), options);
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT')
    return { status: undefined, stdout: '', stderr: '' };
  return { status, stdout, stderr };
}

/** Returns what the command printed; throws with what it complained about when it fails. */
export function runCommand(argv: string[]): string {
  const { status, stdout, stderr } = tryCommand(argv);
  if (status === 0) return stdout;
  const reason = status === undefined ? 'not found' : stderr.trim().replaceAll('\n', '; ') || `exit status ${status}`;
  throw new SmoeError('TESTBED_COMMAND', `${argv.join(' ')}: ${reason}`);
}

export function sleepSync(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
