import { styleText } from 'node:util';

/** Where a command writes: data to stdout, everything else to stderr. */
export interface Console {
  /** Data. */
  out(text: string): void;
  /** A line about what is going on; not shown with --quiet. */
  log(line: string): void;
  /** A line that is overwritten by the next; shown on a terminal only. `undefined` clears it. */
  progress(line: string | undefined): void;
  /** Emphasis for tables on stdout, when it is a terminal that wants colour. */
  style(format: 'bold' | 'dim' | 'green' | 'red', text: string): string;
}

export interface OutputStream {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

export interface Terminal {
  stdout: OutputStream;
  stderr: OutputStream;
  environment: Record<string, string | undefined>;
}

/** Colour only on a terminal, and not where NO_COLOR is set to anything (no-color.org). */
export function wantsColor(stream: OutputStream, environment: Terminal['environment']): boolean {
  return stream.isTTY === true && (environment.NO_COLOR ?? '') === '' && environment.TERM !== 'dumb';
}

export function createConsole(terminal: Terminal, quiet: boolean): Console {
  const { stdout, stderr, environment } = terminal;
  const color = wantsColor(stdout, environment);
  const live = stderr.isTTY === true && environment.TERM !== 'dumb' && !quiet;
  let shown = false;
  const clear = (): void => {
    if (shown) stderr.write('\r\u001B[2K');
    shown = false;
  };
  return {
    out(text) {
      clear();
      stdout.write(text);
    },
    log(line) {
      clear();
      if (!quiet) stderr.write(`${line}\n`);
    },
    progress(line) {
      clear();
      if (!live || line === undefined) return;
      stderr.write(line.slice(0, (stderr.columns ?? 80) - 1));
      shown = true;
    },
    style: (format, text) => (color ? styleText(format, text, { validateStream: false }) : text),
  };
}
