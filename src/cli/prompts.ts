import { readFileSync } from 'node:fs';
import * as valibot from 'valibot';
import type { GenerationRequest, SamplingOptions } from '../engine/api.ts';
import { SmoeError } from '../errors.ts';
import type { Tokenizer } from '../model/tokenizer.ts';

export interface TextDocument {
  text: string;
  /** Such as a domain; empty when unknown. */
  label: string;
}

const documentSchema = valibot.pipe(
  valibot.object({
    text: valibot.optional(valibot.string()),
    prompt: valibot.optional(valibot.string()),
    domain: valibot.optional(valibot.string()),
    label: valibot.optional(valibot.string()),
  }),
  valibot.check(({ text, prompt }) => text !== undefined || prompt !== undefined, 'neither "text" nor "prompt"'),
);

/** Texts of a file: JSON lines with `text` (or `prompt`) and perhaps `domain` (or `label`); else plain text, parted by blank lines. */
export function readDocuments(path: string): TextDocument[] {
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SmoeError('TEXT_UNREADABLE', `${path}: ${(cause as Error).message}`, {
      hint: 'name a .jsonl or .txt file',
      cause,
    });
  }
  const documents = path.endsWith('.jsonl') ? parseJsonLines(path, content) : parseParagraphs(content);
  if (documents.length === 0)
    throw new SmoeError('TEXT_EMPTY', `${path}: holds no text`, { hint: 'one JSON object or paragraph per text' });
  return documents;
}

export function parseJsonLines(path: string, content: string): TextDocument[] {
  return content.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return [];
    const bad = (problem: string): SmoeError =>
      new SmoeError('TEXT_BAD_LINE', `${path}, line ${i + 1}: ${problem}`, {
        hint: 'each line is {"text": "...", "domain": "..."}',
      });
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch (error) {
      throw bad((error as Error).message);
    }
    const parsed = valibot.safeParse(documentSchema, json);
    if (!parsed.success) throw bad(parsed.issues[0].message);
    const { text, prompt, domain, label } = parsed.output;
    return [{ text: text ?? prompt!, label: domain ?? label ?? '' }];
  });
}

export function parseParagraphs(content: string): TextDocument[] {
  return content
    .split(/\r?\n(?:[ \t]*\r?\n)+/)
    .map((text) => ({ text: text.trim(), label: '' }))
    .filter(({ text }) => text !== '');
}

/**
 * `count` documents, as evenly over the labels as possible: labels take turns in order of first appearance, each giving its
 * documents in file order.
 */
export function spreadOverLabels<Document extends { label: string }>(documents: Document[], count: number): Document[] {
  const byLabel = new Map<string, Document[]>();
  for (const document of documents) byLabel.set(document.label, [...(byLabel.get(document.label) ?? []), document]);
  const queues = [...byLabel.values()];
  const chosen: Document[] = [];
  for (let turn = 0; chosen.length < Math.min(count, documents.length); turn++) {
    for (const queue of queues) if (turn < queue.length && chosen.length < count) chosen.push(queue[turn]!);
  }
  return chosen;
}

export interface RequestShape {
  /** Prompts are cut to this many tokens. */
  promptTokens: number;
  maxNewTokens: number;
  sampling: SamplingOptions;
  ignoreEnd: boolean;
  stopStrings: string[];
}

export const greedy: SamplingOptions = { temperature: 0, topP: 1, topK: 0, seed: 1 };

/** Tokenised requests; texts without a token are left out. */
export function toRequests(
  documents: TextDocument[],
  tokenizer: Pick<Tokenizer, 'encode'>,
  shape: RequestShape,
): GenerationRequest[] {
  return documents.flatMap(({ text, label }) => {
    const tokens = tokenizer.encode(text).slice(0, shape.promptTokens);
    if (tokens.length === 0) return [];
    const { maxNewTokens, sampling, ignoreEnd, stopStrings } = shape;
    return [{ tokens, label, maxNewTokens, sampling, ignoreEnd, stopStrings }];
  });
}

/**
 * Positions of KV cache that let a data-parallel group run its share of the requests at once, whichever they are; cache pages
 * hold 16 positions.
 */
export function cachePositionsFor(requests: GenerationRequest[], dataParallel: number): number {
  const perGroup = Math.ceil(requests.length / dataParallel);
  return requests
    .map(({ tokens, maxNewTokens }) => Math.ceil((tokens.length + maxNewTokens) / 16) * 16)
    .sort((a, b) => b - a)
    .slice(0, perGroup)
    .reduce((sum, positions) => sum + positions, 0);
}
