import { createConsole, type Terminal } from './console.ts';
import { readArguments, usageError } from './arguments.ts';
import { suggestion } from './did-you-mean.ts';
import { errorObject, renderJson } from './json.ts';
import { renderOverview, renderUsage } from './usage.ts';
import type { Verb } from './verb.ts';
import { ExitStatus, serializeError } from '../errors.ts';

export interface CommandLine {
  summary: string;
  version: string;
  verbs: Verb[];
  examples: Verb['examples'];
}

/**
 * Runs one command line to its exit status. Never throws: failures are printed, as `error CODE: message` and `hint: ...` on
 * stderr and, with --json, as an object on stdout too.
 */
export async function runCommandLine(
  commandLine: CommandLine,
  argv: string[],
  terminal: Terminal,
  signal: AbortSignal,
): Promise<ExitStatus> {
  const { stdout, stderr } = terminal;
  try {
    const words = wordsBeforeFlags(argv);
    if (words.length === 0) {
      if (argv.includes('--version')) stdout.write(`${commandLine.version}\n`);
      else if (argv.length === 0 || argv.includes('--help') || argv.includes('-h')) {
        stdout.write(renderOverview(commandLine.summary, commandLine.verbs, commandLine.examples));
      } else throw usageError('USAGE_NO_COMMAND', `no command before ${argv[0]}`, { hint: 'see smoe --help' });
      return ExitStatus.done;
    }
    const verb = findVerb(commandLine.verbs, words);
    const rawArgs = argv.slice(verb.name.split(' ').length);
    if (asksForHelp(rawArgs)) {
      stdout.write(renderUsage(verb));
      return ExitStatus.done;
    }
    const [ownArgs, command] = verb.takesCommand === true ? splitAtCommand(rawArgs) : [rawArgs, []];
    const flags = readArguments(ownArgs, verb.args, terminal.environment);
    const console = createConsole(terminal, flags.boolean('quiet'));
    try {
      return await verb.run({ flags, console, command, signal });
    } finally {
      console.progress(undefined);
    }
  } catch (error) {
    const { code, message, hint, exitStatus, stack } = serializeError(error);
    if (code === 'INTERNAL') stderr.write(`${stack}\n`);
    stderr.write(`error ${code}: ${message}\n`);
    if (hint !== undefined) stderr.write(`hint: ${hint}\n`);
    if (argv.includes('--json')) stdout.write(renderJson(errorObject(error)));
    return signal.aborted ? ExitStatus.interrupted : exitStatus;
  }
}

function asksForHelp(rawArgs: string[]): boolean {
  const end = rawArgs.indexOf('--');
  return rawArgs.slice(0, end === -1 ? undefined : end).some((arg) => arg === '--help' || arg === '-h');
}

/** The verb's own arguments, and the command after `--`. */
function splitAtCommand(rawArgs: string[]): [own: string[], command: string[]] {
  const end = rawArgs.indexOf('--');
  return end === -1 ? [rawArgs, []] : [rawArgs.slice(0, end), rawArgs.slice(end + 1)];
}

function wordsBeforeFlags(argv: string[]): string[] {
  const end = argv.findIndex((arg) => arg.startsWith('-'));
  return end === -1 ? argv : argv.slice(0, end);
}

/** The verb whose name the words begin with, the longest: `trace show` has two, and `plan diff` is not `plan` of a file. */
function findVerb(verbs: Verb[], words: string[]): Verb {
  const found = verbs.filter(({ name }) => name.split(' ').every((word, i) => words[i] === word));
  if (found.length > 0) return found.reduce((best, verb) => (verb.name.length > best.name.length ? verb : best));
  const inGroup = verbs.filter(({ name }) => name.startsWith(`${words[0]} `)).map(({ name }) => name);
  if (inGroup.length === 0) {
    const names = [...new Set(verbs.map(({ name }) => name.split(' ')[0]!))];
    throw usageError('USAGE_UNKNOWN_COMMAND', `unknown command ${JSON.stringify(words[0])}`, {
      hint: suggestion(words[0]!, names),
    });
  }
  const written = words.slice(0, 2).join(' ');
  throw usageError('USAGE_UNKNOWN_COMMAND', `smoe ${written}: no such command`, { hint: suggestion(written, inGroup) });
}
