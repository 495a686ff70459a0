/**
 * Reads what comes out of mpirun's standard error: errors of ranks (see mpi-protocol.ts), mpirun's own notices, and whatever
 * else the ranks print.
 */
import { launchCause, type LaunchCause } from './mpi-launch-cause.ts';
import { decodeLine, type MessageFromMpiRank } from './mpi-protocol.ts';

export interface LauncherListener {
  onMessage(rank: number, message: MessageFromMpiRank): void;
  /** mpirun says that a rank ended. */
  onDeath(rank: number, reason: string): void;
  /** mpirun says that it has lost a host. */
  onHostLost(host: string): void;
  /** A line printed by a rank. */
  onLine(line: string): void;
}

const ruler = /^-{40,}$/;
// Open MPI 5 breaks these lines elsewhere than 4, and its jobs have names: [[4519,1],1] and [prterun-host-13511@1,1].
const killed = /process rank (\d+) with PID \d+ on node (\S+)\s+exited\s+on\s+(signal \d+ \([^)]*\))/;
const exited = /Process name: \[\S+,(\d+)\]\s+Exit code:\s+(\d+)/;
const hostLost = /lost communication with a remote daemon[^]*Remote daemon: \S+ on node (\S+)/;
const keptLines = 20;

export class LauncherOutput {
  /** Why ranks could not be started on some host, where a line has told. */
  cause: LaunchCause | undefined;
  private readonly listener: LauncherListener;
  private rest = '';
  /** Lines of the notice being read; undefined outside of one. */
  private open: string[] | undefined;
  private readonly latest: string[] = [];

  constructor(listener: LauncherListener) {
    this.listener = listener;
  }

  /** The last lines of mpirun and the ranks. */
  get tail(): string {
    return [...this.latest, ...(this.open ?? [])].join('\n').trim();
  }

  push(text: string): void {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop()!;
    for (const line of lines) this.read(line);
  }

  private read(line: string): void {
    const told = decodeLine(line);
    if (told !== undefined) {
      this.listener.onMessage(told.rank, told.message);
    } else if (ruler.test(line)) {
      if (this.open === undefined) this.open = [];
      else this.close(this.open);
    } else if (this.open !== undefined) {
      this.open.push(line);
    } else if (line !== '') {
      this.cause ??= launchCause(line);
      this.keep([line]);
      this.listener.onLine(line);
    }
  }

  private close(lines: string[]): void {
    this.open = undefined;
    this.keep(lines);
    const text = lines.join('\n');
    const signalled = killed.exec(text);
    if (signalled !== null) this.listener.onDeath(Number(signalled[1]), `${signalled[3]} on ${signalled[2]}`);
    const lost = hostLost.exec(text);
    if (lost !== null) this.listener.onHostLost(lost[1]);
    const ended = exited.exec(text);
    if (ended !== null) this.listener.onDeath(Number(ended[1]), `exited with code ${ended[2]}`);
  }

  private keep(lines: string[]): void {
    this.latest.push(...lines);
    this.latest.splice(0, this.latest.length - keptLines);
  }
}
