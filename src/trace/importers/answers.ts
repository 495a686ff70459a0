import { readFileSync, statSync } from 'node:fs';
import { SmoeError } from '../../errors.ts';
import { badRecord, unreadable } from '../bad-record.ts';
import type { TraceSink, Where } from '../trace-sink.ts';
import { asObject, parseJson } from './fields.ts';
import { readLines } from './lines.ts';
import { AnswerCollector, type RoutedAnswer } from './routed-experts.ts';

const largestFile = 512 * 1024 * 1024;

/** What the parser of a server's answer may use; undefined where not known. */
export interface AnswerContext {
  topK: number | undefined;
}

/** The requests in one answer body; an answer may hold several choices. */
export type AnswerParser = (where: Where, answer: Record<string, unknown>, context: AnswerContext) => RoutedAnswer[];

/** Reads saved answer bodies: one per line, or one file of JSON with an answer or a list of them. */
export async function readAnswers(path: string, sink: TraceSink, parse: AnswerParser): Promise<void> {
  const collector = new AnswerCollector(sink);
  const addBody = (where: Where, body: unknown): void => {
    for (const answer of Array.isArray(body) ? body : [body]) {
      for (const routed of parse(where, asObject(where, answer), { topK: sink.known.topK })) {
        if (!sink.full) collector.add(where, routed);
      }
    }
  };
  let lines = 0;
  for await (const { text, number } of readLines(path)) {
    const where = (): string => `${path}, line ${number}`;
    if (lines++ === 0 && !isJson(text)) {
      addBody(
        () => path,
        parseJson(() => path, wholeText(path)),
      );
      break;
    }
    addBody(where, parseJson(where, text));
    if (sink.full) break;
  }
  noteCached(sink, collector);
}

export function noteCached(sink: TraceSink, { cachedPositions }: AnswerCollector): void {
  if (cachedPositions > 0)
    sink.notes.push(`${cachedPositions} positions came without routing (cached or not captured) and are left out`);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function wholeText(path: string): string {
  try {
    const { size } = statSync(path);
    if (size <= largestFile) return readFileSync(path, 'utf8');
    throw badRecord(
      path,
      `${size} bytes are too many for one JSON value`,
      `at most ${largestFile}; write one answer per line`,
    );
  } catch (error) {
    throw error instanceof SmoeError ? error : unreadable(path, error);
  }
}
