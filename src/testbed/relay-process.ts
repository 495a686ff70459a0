import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SmoeError } from '../errors.ts';
import { relayReadyLine, type RelayJob } from './relay-protocol.ts';
import { systemPath } from './system.ts';

const relayEntry = fileURLToPath(new URL('relay.js', import.meta.url));
const startLimitMs = 10_000;

/**
 * Starts the relay in a namespace and returns once its devices exist. It outlives this process; ending it is a matter of ending
 * the processes of the namespace.
 */
export async function startRelay(namespace: string, job: RelayJob, logFile: string): Promise<void> {
  const log = openSync(logFile, 'w', 0o600);
  const relay = spawn('ip', ['netns', 'exec', namespace, process.execPath, relayEntry, JSON.stringify(job)], {
    detached: true,
    stdio: ['ignore', 'pipe', log],
    env: { ...process.env, PATH: systemPath, NODE_OPTIONS: '' },
  });
  closeSync(log);
  const outcome = await new Promise<string>((resolve) => {
    const limit = setTimeout(() => resolve('it took too long to start'), startLimitMs);
    const settle = (result: string): void => {
      clearTimeout(limit);
      resolve(result);
    };
    relay.stdout!.once('data', (chunk: Buffer) => settle(chunk.toString().trim()));
    relay.once('error', (error) => settle(error.message));
    relay.once('exit', () => settle(lastErrorLine(logFile)));
  });
  relay.removeAllListeners();
  relay.stdout!.destroy();
  relay.unref();
  if (outcome === relayReadyLine) return;
  relay.kill('SIGKILL');
  throw new SmoeError('TESTBED_RELAY', `the relay that delays frames did not start: ${outcome}`, {
    hint: 'give --latency 0, or use a kernel with netem',
  });
}

function lastErrorLine(logFile: string): string {
  const lines = readFileSync(logFile, 'utf8').split('\n');
  return lines.find((line) => /^\w*Error: /.test(line)) ?? lines.findLast((line) => line !== '') ?? 'it ended at once';
}
