import type { ArgDef, ArgsDef } from 'citty';
import { commonArgs } from './arguments.ts';
import { wrap } from './format.ts';
import type { Verb } from './verb.ts';

export interface UsageEntry {
  term: string;
  text: string;
}

const width = 100;

/** `smoe --help`: what there is. */
export function renderOverview(summary: string, verbs: Verb[], examples: Verb['examples']): string {
  const commands = verbs.map(({ name, summary: text }) => ({ term: `smoe ${name}`, text }));
  return [
    `${summary}\n`,
    'Usage: smoe COMMAND [options]\n',
    section('Commands', commands),
    section('Options', [
      { term: '--help, -h', text: 'Show this text, or that of a command' },
      { term: '--version', text: 'Show the version' },
    ]),
    exampleLines(examples),
    'Every option of a command can be set in the environment too: --max-new-tokens is SMOE_MAX_NEW_TOKENS.\n' +
      'Data goes to stdout, progress and notes to stderr. Exit status: 0 done, 1 failed, 2 wrong usage,\n' +
      '3 no feasible plan, 130 interrupted.\n',
  ].join('\n');
}

/** `smoe VERB --help` */
export function renderUsage(verb: Verb): string {
  const args: ArgsDef = { ...verb.args, ...commonArgs };
  const entries = Object.entries(args);
  const positionals = entries.filter(([, { type }]) => type === 'positional');
  const options = entries.filter(([, { type }]) => type !== 'positional');
  const synopsis = positionals.map(([name, { required }]) =>
    required === true ? name.toUpperCase() : `[${name.toUpperCase()}]`,
  );
  return [
    `${verb.summary}.\n`,
    `Usage: ${['smoe', verb.name, ...synopsis, '[options]', ...(verb.takesCommand === true ? ['-- COMMAND...'] : [])].join(' ')}\n`,
    ...(positionals.length === 0
      ? []
      : [
          section(
            'Arguments',
            positionals.map(([name, arg]) => ({ term: name.toUpperCase(), text: described(arg) })),
          ),
        ]),
    section(
      'Options',
      options.map(([name, arg]) => ({ term: flagTerm(name, arg), text: described(arg) })),
    ),
    exampleLines(verb.examples),
  ].join('\n');
}

function flagTerm(name: string, arg: ArgDef): string {
  const alias = 'alias' in arg && typeof arg.alias === 'string' ? `, -${arg.alias}` : '';
  return `--${name}${arg.type === 'boolean' ? '' : ` ${arg.valueHint ?? 'VALUE'}`}${alias}`;
}

function described(arg: ArgDef): string {
  const notes = [
    arg.required === true && arg.type !== 'positional' ? 'required' : '',
    arg.default === undefined || arg.type === 'boolean' ? '' : `default ${arg.default}`,
  ].filter((note) => note !== '');
  return notes.length === 0 ? arg.description! : `${arg.description} (${notes.join(', ')})`;
}

function section(title: string, entries: UsageEntry[]): string {
  const indent = 2 + Math.max(...entries.map(({ term }) => term.length)) + 2;
  const lines = entries.flatMap(({ term, text }) =>
    wrap(text, width - indent).map((line, i) => `${(i === 0 ? `  ${term}` : '').padEnd(indent)}${line}\n`),
  );
  return `${title}:\n${lines.join('')}`;
}

function exampleLines(examples: Verb['examples']): string {
  return `Examples:\n${examples.map(({ command, does }) => `  # ${does}\n  smoe ${command}\n`).join('')}`;
}
