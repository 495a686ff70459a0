import type { TraceSink } from '../trace-sink.ts';

/** One foreign format; one file each. Adding one adds a line to the table in index.ts. */
export interface TraceImporter {
  /** As given to --format. */
  name: string;
  /** One line for lists. */
  describes: string;
  /** Whether the input looks like this format. */
  recognises(head: InputHead): boolean;
  /** Reads the whole input into the sink, until it is full. Throws TRACE_* errors that name file, record and field. */
  read(path: string, sink: TraceSink, options: ImporterOptions): Promise<void>;
}

/** What can be seen of an input without reading it. */
export interface InputHead {
  /** Paths of everything in the folder; undefined for a file. */
  entries: string[] | undefined;
  /** The first bytes of a file. */
  bytes: Buffer;
  /** The same as text. */
  text: string;
}

/** Settings that single formats need. */
export interface ImporterOptions {
  /** FLAME-MoE: training iteration; the last when undefined. */
  iteration: number | undefined;
  /** FLAME-MoE: tokens of one sequence; the captures do not mark where sequences begin. */
  sequenceTokens: number;
  /** sglang-recorder: Python with PyTorch, which reads the dumps. */
  python: string;
  /** Ends the reading. */
  signal: AbortSignal | undefined;
}

export const defaultImporterOptions: ImporterOptions = {
  iteration: undefined,
  sequenceTokens: 2048,
  python: 'python3',
  signal: undefined,
};
