/** The network namespaces of testbeds on this machine and the processes in them. */
import { testbedOfNamespace } from './names.ts';
import { sleepSync, tryCommand } from './system.ts';

const politeMs = 2000;
const pollMs = 20;

/** Namespaces of every testbed, known from their names alone. */
export function listTestbedNamespaces(): string[] {
  return tryCommand(['ip', 'netns', 'list'])
    .stdout.split('\n')
    .map((line) => line.split(' ')[0]!)
    .filter((namespace) => testbedOfNamespace(namespace) !== undefined);
}

export function processesIn(namespace: string): number[] {
  return tryCommand(['ip', 'netns', 'pids', namespace])
    .stdout.split('\n')
    .filter((line) => line !== '')
    .map(Number);
}

/** Asks every process in the namespaces to end, then makes it. Not this one, should it be inside. */
export function endProcessesIn(namespaces: string[]): void {
  const remaining = (): number[] => namespaces.flatMap(processesIn).filter((id) => id !== process.pid);
  signalAll(remaining(), 'SIGTERM');
  for (let waited = 0; waited < politeMs && remaining().length > 0; waited += pollMs) sleepSync(pollMs);
  signalAll(remaining(), 'SIGKILL');
  for (let waited = 0; waited < politeMs && remaining().length > 0; waited += pollMs) sleepSync(pollMs);
}

/** With a namespace go its devices. Ones that are gone already are passed over. */
export function removeNamespaces(namespaces: string[]): void {
  endProcessesIn(namespaces);
  for (const namespace of namespaces) tryCommand(['ip', 'netns', 'del', namespace]);
}

function signalAll(ids: number[], signal: NodeJS.Signals): void {
  for (const id of ids) {
    try {
      process.kill(id, signal);
    } catch {
      // It ended meanwhile.
    }
  }
}
