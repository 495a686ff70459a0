/**
 * Ends mpirun, and the ranks with it, when the process that started it is gone, however that ended. A shell waits at the other
 * end of a pipe that the kernel closes; mpirun itself does not tell the ranks (Open MPI 5 hides the end of its input).
 */
import { spawn, type ChildProcess } from 'node:child_process';

/** Told to end, mpirun gets this long before it is killed. */
const politeSeconds = 3;
const script = `read line; kill -TERM "$1" && sleep ${politeSeconds} && kill -KILL "$1"`;

/** Guards the process `pid` until the returned function is called. */
export function guardLauncher(pid: number): () => void {
  // Out of the terminal's reach, whose Ctrl-C is for the process that it guards against.
  const guard: ChildProcess = spawn('/bin/sh', ['-c', script, 'smoe-guard', String(pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  guard.on('error', () => undefined);
  guard.stdin!.on('error', () => undefined);
  guard.unref();
  (guard.stdin as unknown as { unref?: () => void }).unref?.();
  return () => void guard.kill('SIGKILL');
}
