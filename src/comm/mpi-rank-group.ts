/** Host side of the `mpi` transport: starts the ranks with mpirun and talks to them through its pipes. */
import { execFile, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ExitStatus, SmoeError } from '../errors.ts';
import { reasonOf } from './base-rank-group.ts';
import { guardLauncher } from './mpi-guard.ts';
import { MpiHostGroup } from './mpi-host-group.ts';
import { isInsideMpi } from './mpi-environment.ts';
import { LauncherOutput } from './mpi-launcher-output.ts';
import { assertSupported, installHint, loadKoffi } from './mpi-library.ts';
import { parameterWords, rankParameters, withoutRepeatedParameters } from './mpi-parameters.ts';
import { encodeFrame, FrameReader, type Agreement } from './mpi-protocol.ts';
import { checkRankCount, type LaunchOptions, type RankGroup } from './rank-group.ts';

export interface MpiLaunchOptions<Event> extends LaunchOptions<Event> {
  /** Hosts as for `mpirun --host`: "name" or "name:slots". The program must lie at the same path on each. */
  hosts?: string[];
  /** File for `mpirun --hostfile`. */
  hostfile?: string;
  /** More options for mpirun, such as ['--mca', 'btl_tcp_if_include', 'eth1']; they may override the ones given here. */
  mpirunArguments?: string[];
  /** Environment variables of the ranks, beside this process's own on this host. */
  environment?: Record<string, string>;
  /** Named values every rank must agree on; ranks add those of their entry module's `agreementOf(data)`. */
  agreement?: Agreement;
  /** For lines that ranks print; standard error when left out. */
  onOutput?: (line: string) => void;
  /** How long mpirun may take until every rank has answered. */
  startTimeoutMs?: number;
}

const defaultStartTimeoutMs = 60_000;
/** Ranks asked to stop end by themselves within this time; mpirun is told to end them after it. */
const stopWithinMs = 2000;
/** mpirun, told to end, does so within this time; it is killed after it, and the ranks with it. */
const endWithinMs = 2500;

/** After mpirun has ended its last words have been read within this time. */
const drainMs = 2000;

/** Resolves once `createRank` of every rank has returned; rejects with the first failing rank's error. */
export async function launchMpiRanks<Job, Report, Event = never>(
  options: MpiLaunchOptions<Event>,
): Promise<RankGroup<Job, Report>> {
  checkRankCount(options.size);
  const mpirun = await findMpirun();
  const group = new LaunchedRankGroup<Job, Report, Event>(options, mpirun);
  await group.started;
  return group;
}

/** Whether ranks could be started with MPI here; the error says what is missing. */
export async function mpiProblem(): Promise<SmoeError | undefined> {
  try {
    await findMpirun();
    return undefined;
  } catch (error) {
    return error as SmoeError;
  }
}

/** Checks the installation on this host, before anything is started; returns the path of mpirun. */
async function findMpirun(): Promise<string> {
  if (isInsideMpi()) {
    throw new SmoeError('MPI_NESTED', 'this process has been started by mpirun itself and cannot start ranks with it', {
      hint: 'start one process without mpirun, or let the ranks join with joinProcesses',
      exitStatus: ExitStatus.usage,
    });
  }
  loadKoffi();
  const mpirun = process.env.SMOE_MPIRUN ?? 'mpirun';
  let version: string;
  try {
    version = (await promisify(execFile)(mpirun, ['--version'], { timeout: 20_000 })).stdout;
  } catch (error) {
    throw new SmoeError('MPI_MISSING', `${mpirun} cannot be run: ${reasonOf(error)}`, {
      hint: installHint,
      cause: error,
    });
  }
  assertSupported(version);
  return mpirun;
}

class LaunchedRankGroup<Job, Report, Event> extends MpiHostGroup<Job, Report, Event> {
  readonly started: Promise<void>;
  private readonly launcher: ChildProcessWithoutNullStreams;
  private readonly launcherEnded: Promise<void>;
  private readonly output: LauncherOutput;

  constructor(options: MpiLaunchOptions<Event>, mpirun: string) {
    super(options.size, options.onEvent);
    this.launcher = spawn(mpirun, mpirunArguments(options), { detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
    const { pid, stdin, stdout, stderr } = this.launcher;
    const endGuard = pid === undefined ? () => undefined : guardLauncher(pid);
    const print = (line: string): void => {
      // What ranks say while they are being ended is of no use.
      if (this.hasFailed) return;
      if (options.onOutput === undefined) process.stderr.write(`${line}\n`);
      else options.onOutput(line);
    };
    this.output = new LauncherOutput({
      onMessage: (rank, message) => this.hear(rank, message),
      onDeath: (rank, reason) => {
        if (this.output.cause === undefined) this.died(rank, reason);
        else this.fail(this.launchError(`rank ${rank} ${reason}`));
      },
      onHostLost: (host) => {
        this.fail(
          new SmoeError('RANK_LOST', `mpirun cannot reach ${host} any more: it is down or the network between is cut`, {
            hint: 'look at that host and at the network, then start again',
          }),
        );
      },
      onLine: print,
    });
    const reader = new FrameReader(
      (rank, body) => this.receiveBody(rank, body),
      (stray) => print(Buffer.from(stray).toString().trimEnd()),
    );
    stdout.on('data', (chunk: Buffer) => reader.push(chunk));
    stderr.setEncoding('utf8').on('data', (text: string) => this.output.push(text));
    // What follows when mpirun ends is told by its exit.
    stdin.on('error', () => undefined);
    this.launcherEnded = new Promise((resolve) => {
      this.launcher.on('error', (error) => {
        this.fail(new SmoeError('MPI_LAUNCH', `mpirun cannot be started: ${reasonOf(error)}`, { cause: error }));
        resolve();
      });
      const ended = (code: number | null, signal: NodeJS.Signals | null): void => {
        this.fail(this.launchError(`mpirun ended ${signal === null ? `with code ${code}` : `by ${signal}`}`));
        resolve();
      };
      this.launcher.on('close', ended);
      // Its pipes are read to their end, unless something that mpirun has left behind holds them.
      this.launcher.on('exit', (code, signal) => {
        endGuard();
        setTimeout(() => {
          stdout.destroy();
          stderr.destroy();
          ended(code, signal);
        }, drainMs).unref();
      });
    });
    const timeoutMs = options.startTimeoutMs ?? defaultStartTimeoutMs;
    const timer = setTimeout(() => {
      this.fail(this.launchError(`the ranks have not all answered within ${timeoutMs / 1000} seconds`));
    }, timeoutMs);
    this.started = this.start(options, options.agreement ?? {}).finally(() => clearTimeout(timer));
  }

  protected sendBody(to: number, body: Uint8Array): void {
    this.launcher.stdin.write(encodeFrame(to, body));
  }

  protected async end(failure: SmoeError): Promise<void> {
    const timers: NodeJS.Timeout[] = [];
    const later = (ms: number, action: () => void): void => void timers.push(setTimeout(action, ms));
    const kill = (): void => {
      this.launcher.kill('SIGTERM');
      later(endWithinMs, () => this.launcher.kill('SIGKILL'));
    };
    if (failure.code === 'RANK_GROUP_CLOSED' && this.isIdle) {
      this.send({ type: 'stop' });
      later(stopWithinMs, kill);
    } else {
      kill();
    }
    await this.launcherEnded;
    for (const timer of timers) clearTimeout(timer);
    if (this.launcher.pid !== undefined) removeSessionDirectory(this.launcher.pid);
  }

  private launchError(what: string): SmoeError {
    const { cause, tail } = this.output;
    if (cause !== undefined) return new SmoeError('MPI_LAUNCH', `${cause.message} (${what})`, { hint: cause.hint });
    return new SmoeError('MPI_LAUNCH', tail === '' ? what : `${what}: ${tail}`);
  }
}

/** What mpirun keeps on this host's disk and removes itself unless it is killed: /tmp/ompi.HOST.USER/pid.PID, of version 5 /tmp/ompi.PID. */
function removeSessionDirectory(pid: number): void {
  const { TMPDIR, TEMP, TMP } = process.env;
  const base = TMPDIR || TEMP || TMP || '/tmp';
  try {
    rmSync(join(base, `ompi.${pid}`), { recursive: true, force: true });
    for (const name of readdirSync(base)) {
      if (name.startsWith('ompi.')) rmSync(join(base, name, `pid.${pid}`), { recursive: true, force: true });
    }
  } catch {
    // Leftovers on disk are no reason for a run to fail.
  }
}

function mpirunArguments<Event>(options: MpiLaunchOptions<Event>): string[] {
  const { size, hosts, hostfile, environment = {}, mpirunArguments: more = [], resourceLimits } = options;
  const heap = resourceLimits?.maxOldGenerationSizeMb;
  return [
    ...['-n', String(size), '--oversubscribe'],
    ...(process.getuid?.() === 0 ? ['--allow-run-as-root'] : []),
    ...withoutRepeatedParameters([...parameterWords(rankParameters), ...more]),
    // Node.js has threads of its own beside the one that runs the rank.
    ...(more.includes('--bind-to') ? [] : ['--bind-to', 'none']),
    ...(hosts === undefined ? [] : ['--host', hosts.join(',')]),
    ...(hostfile === undefined ? [] : ['--hostfile', hostfile]),
    ...Object.entries(environment).flatMap(([name, value]) => ['-x', `${name}=${value}`]),
    process.execPath,
    ...(heap === undefined ? [] : [`--max-old-space-size=${heap}`]),
    fileURLToPath(rankModule()),
    String(size),
  ];
}

/** The compiled mpi-rank module. */
function rankModule(): URL {
  const module = new URL('./mpi-rank.js', import.meta.url);
  if (existsSync(module)) return module;
  throw new SmoeError('MPI_LAUNCH', `${fileURLToPath(module)} is missing`, { hint: 'run npm run build' });
}
