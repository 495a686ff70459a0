import { writeFileSync } from 'node:fs';
import type { ArgsDef } from 'citty';
import { SmoeError } from '../errors.ts';
import { usageError } from './arguments.ts';
import type { Console } from './console.ts';
import type { Flags } from './flags.ts';

export const figureArgs: ArgsDef = {
  figure: { type: 'string', valueHint: 'FILE', description: 'Draw the figures too (.svg)' },
};

/** Writes the figure that --figure asks for; undefined when it is not given. Looks at the name before anything is computed. */
export function figureWriter(flags: Flags, console: Console): ((svg: string) => void) | undefined {
  const path = flags.optional('figure');
  if (path === undefined) return undefined;
  if (!path.endsWith('.svg')) throw usageError('USAGE_BAD_VALUE', `--figure: ${path} does not end in .svg`);
  return (svg) => {
    try {
      writeFileSync(path, svg);
    } catch (cause) {
      throw new SmoeError('FIGURE_WRITE', `${path}: cannot write the figure: ${(cause as Error).message}`, { cause });
    }
    console.log(`${path}: written`);
  };
}
