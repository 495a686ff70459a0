import { ExitStatus, SmoeError } from '../errors.ts';
import { suggestion } from './did-you-mean.ts';

export interface NumberRange {
  minimum?: number;
  maximum?: number;
}

/** A verb's parsed arguments, read by type; a bad value is a usage error that names its flag. */
export class Flags {
  readonly #values: Record<string, unknown>;
  readonly #given: ReadonlyMap<string, string[]>;

  /** @param given every value of the flags on the command line, for those that may be repeated */
  constructor(values: Record<string, unknown>, given: ReadonlyMap<string, string[]> = new Map()) {
    this.#values = values;
    this.#given = given;
  }

  has(name: string): boolean {
    return this.#values[name] !== undefined;
  }

  boolean(name: string): boolean {
    return this.#values[name] === true;
  }

  /** The last value when a flag is repeated. */
  optional(name: string): string | undefined {
    return this.#values[name] as string | undefined;
  }

  string(name: string): string {
    const value = this.optional(name);
    if (value === undefined) throw new Error(`flag ${name} has neither a value nor a default`);
    return value;
  }

  integer(name: string, range: NumberRange = {}): number {
    return this.#number(name, range, 'a whole number', (text) => /^[+-]?\d+$/.test(text));
  }

  number(name: string, range: NumberRange = {}): number {
    return this.#number(name, range, 'a number', (text) => text.trim() !== '' && Number.isFinite(Number(text)));
  }

  choice<const Choice extends string>(name: string, choices: readonly Choice[]): Choice {
    return oneOf(name, this.string(name), choices);
  }

  /** Comma-separated words, at least one; a repeated flag adds to them. */
  list(name: string): string[] {
    const text = this.#given.get(name)?.join(',') ?? this.string(name);
    const words = text.split(',').map((word) => word.trim());
    if (words.includes('')) throw badValue(name, `${JSON.stringify(text)} has an empty word between commas`);
    return words;
  }

  /** Comma-separated words, each one of `choices`, none twice. */
  choices<const Choice extends string>(name: string, choices: readonly Choice[]): Choice[] {
    const words = this.list(name).map((word) => oneOf(name, word, choices));
    const repeated = words.find((word, i) => words.indexOf(word) !== i);
    if (repeated !== undefined) throw badValue(name, `${repeated} is named twice`);
    return words;
  }

  #number(
    name: string,
    { minimum, maximum }: NumberRange,
    kind: string,
    looksRight: (text: string) => boolean,
  ): number {
    const text = this.string(name);
    const value = Number(text);
    const inRange = value >= (minimum ?? Number.NEGATIVE_INFINITY) && value <= (maximum ?? Number.POSITIVE_INFINITY);
    if (looksRight(text) && inRange) return value;
    const bounds =
      minimum !== undefined && maximum !== undefined
        ? ` from ${minimum} to ${maximum}`
        : minimum !== undefined
          ? `, ${minimum} or more`
          : maximum !== undefined
            ? `, ${maximum} or less`
            : '';
    throw badValue(name, `${JSON.stringify(text)} is not ${kind}${bounds}`);
  }
}

function oneOf<Choice extends string>(name: string, word: string, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === word);
  if (found === undefined) throw badValue(name, `${JSON.stringify(word)} is not known`, suggestion(word, choices));
  return found;
}

function badValue(name: string, message: string, hint?: string): SmoeError {
  return new SmoeError('USAGE_BAD_VALUE', `--${name}: ${message}`, {
    exitStatus: ExitStatus.usage,
    ...(hint === undefined ? {} : { hint }),
  });
}
