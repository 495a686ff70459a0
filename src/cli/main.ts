#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { ExitStatus } from '../errors.ts';
import { commandLineOf } from './verbs.ts';
import { runCommandLine } from './command-line.ts';

const interruption = new AbortController();
process.on('SIGINT', () => {
  // A second Ctrl-C does not wait for the ranks to end.
  if (interruption.signal.aborted) process.exit(ExitStatus.interrupted);
  interruption.abort();
});
process.on('SIGTERM', () => interruption.abort());
// The reader of a pipe may leave before we are done (`smoe ... | head`).
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? ExitStatus.done : ExitStatus.failed);
});

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};
process.exitCode = await runCommandLine(
  commandLineOf(version),
  process.argv.slice(2),
  { stdout: process.stdout, stderr: process.stderr, environment: process.env },
  interruption.signal,
);
