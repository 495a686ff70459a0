import { type ArgDef, type ArgsDef, parseArgs } from 'citty';
import { ExitStatus, SmoeError } from '../errors.ts';
import { suggestion } from './did-you-mean.ts';
import { Flags } from './flags.ts';

/** Flags that every verb has. */
export const commonArgs: ArgsDef = {
  quiet: { type: 'boolean', alias: 'q', description: 'Print no progress and no notes on stderr' },
  help: { type: 'boolean', alias: 'h', description: 'Show this text' },
};

/** `--max-new-tokens` is also SMOE_MAX_NEW_TOKENS. */
export function environmentName(flag: string): string {
  return `SMOE_${flag.replaceAll('-', '_').toUpperCase()}`;
}

/**
 * Checks and reads a verb's arguments. A flag given on the command line wins over its environment twin. citty passes unknown
 * flags and missing values over in silence, so both are refused before it sees them.
 */
export function readArguments(
  rawArgs: string[],
  args: ArgsDef,
  environment: Record<string, string | undefined>,
): Flags {
  const defined: ArgsDef = { ...args, ...commonArgs };
  const given = checkFlags(rawArgs, defined);
  const fromEnvironment = environmentArguments(given, defined, environment);
  const parsed = parseArgs([...fromEnvironment, ...rawArgs], optionalOnly(defined));
  const positionals = Object.keys(defined).filter((name) => defined[name]!.type === 'positional');
  if (parsed._.length > positionals.length) {
    throw usageError('USAGE_EXTRA_ARGUMENT', `unexpected argument ${JSON.stringify(parsed._[positionals.length])}`, {
      hint: 'quote values with spaces; see --help',
    });
  }
  for (const name of positionals) {
    if (defined[name]!.required === true && parsed[name] === undefined) {
      throw usageError('USAGE_MISSING_ARGUMENT', `${name.toUpperCase()} is missing`, {
        hint: `${defined[name]!.description}`,
      });
    }
  }
  for (const [name, { type, required }] of Object.entries(defined)) {
    if (type !== 'positional' && required === true && parsed[name] === undefined) {
      throw usageError('USAGE_MISSING_FLAG', `--${name} is missing`, {
        hint: `give --${name} or set ${environmentName(name)}`,
      });
    }
  }
  return new Flags(parsed as Record<string, unknown>, given);
}

/** Which flags are given, with all their values; throws for an unknown one and for one without its value. */
function checkFlags(rawArgs: string[], args: ArgsDef): Map<string, string[]> {
  const known = Object.keys(args).filter((name) => args[name]!.type !== 'positional');
  const aliases = new Map(known.flatMap((name) => aliasesOf(args[name]!).map((alias) => [alias, name])));
  const given = new Map<string, string[]>();
  for (let i = 0; i < rawArgs.length; i++) {
    const arg = rawArgs[i]!;
    if (arg === '--') break;
    if (!arg.startsWith('-') || arg === '-') continue;
    const [written, attached] = splitAtEquals(arg);
    const name = flagNamed(written, known, aliases, args);
    given.set(name, given.get(name) ?? []);
    if (args[name]!.type === 'boolean') {
      if (attached !== undefined && attached !== 'true' && attached !== 'false') {
        throw usageError('USAGE_BAD_VALUE', `--${name}: ${JSON.stringify(attached)} is neither true nor false`);
      }
      continue;
    }
    const value = attached ?? rawArgs[++i];
    if (value === undefined || value === '' || (attached === undefined && isFlag(value))) {
      throw usageError('USAGE_MISSING_VALUE', `--${name} needs a value`, { hint: `${args[name]!.description}` });
    }
    given.get(name)!.push(value);
  }
  return given;
}

function flagNamed(written: string, known: string[], aliases: Map<string, string>, args: ArgsDef): string {
  const short = /^-([A-Za-z])$/.exec(written)?.[1];
  if (short !== undefined && aliases.has(short)) return aliases.get(short)!;
  const long = /^--(.+)$/.exec(written)?.[1];
  if (long !== undefined && known.includes(long)) return long;
  const negated = /^--no-(.+)$/.exec(written)?.[1];
  if (negated !== undefined && args[negated]?.type === 'boolean') return negated;
  throw usageError('USAGE_UNKNOWN_FLAG', `unknown flag ${written}`, {
    hint: suggestion(
      written,
      known.map((name) => `--${name}`),
    ),
  });
}

/** A negative number is a value, not a flag. */
function isFlag(arg: string): boolean {
  return arg.startsWith('-') && arg !== '-' && !/^-[\d.]/.test(arg);
}

function splitAtEquals(arg: string): [string, string | undefined] {
  const at = arg.indexOf('=');
  return at === -1 ? [arg, undefined] : [arg.slice(0, at), arg.slice(at + 1)];
}

function environmentArguments(
  given: Map<string, string[]>,
  args: ArgsDef,
  environment: Record<string, string | undefined>,
): string[] {
  const found: string[] = [];
  for (const [name, { type }] of Object.entries(args)) {
    const variable = environmentName(name);
    const value = environment[variable];
    if (type === 'positional' || name === 'help' || given.has(name) || value === undefined || value === '') continue;
    if (type !== 'boolean') found.push(`--${name}=${value}`);
    else if (/^(1|true|yes|on)$/i.test(value)) found.push(`--${name}`);
    else if (!/^(0|false|no|off)$/i.test(value)) {
      throw usageError('USAGE_BAD_VALUE', `${variable}: ${JSON.stringify(value)} is neither 1 nor 0`);
    }
  }
  return found;
}

/** What is required is checked here, with this project's errors, not by citty. */
function optionalOnly(args: ArgsDef): ArgsDef {
  return Object.fromEntries(
    Object.entries(args).map(([name, definition]) => [name, { ...definition, required: false }]),
  );
}

function aliasesOf({ type, ...definition }: ArgDef): string[] {
  if (type === 'positional' || !('alias' in definition) || definition.alias === undefined) return [];
  return typeof definition.alias === 'string' ? [definition.alias] : definition.alias;
}

export function usageError(code: string, message: string, options: { hint?: string } = {}): SmoeError {
  return new SmoeError(code, message, { ...options, exitStatus: ExitStatus.usage });
}
