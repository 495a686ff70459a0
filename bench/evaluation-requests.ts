/** Requests made from the shipped model's evaluation text. */
import { readFileSync } from 'node:fs';
import { demoDirectory, demoEvaluation } from '../src/cli/model-directory.ts';
import type { GenerationRequest } from '../src/engine/api.ts';
import { loadTokenizer } from '../src/model/tokenizer.ts';

/** `count` texts spread over the evaluation file, joined with the next ones until they are long enough, cut to length. */
export function evaluationRequests(count: number, promptTokens: number, maxNewTokens: number): GenerationRequest[] {
  const tokenizer = loadTokenizer(demoDirectory);
  const texts = readFileSync(demoEvaluation, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { text: string; domain: string });
  return Array.from({ length: count }, (_, i) => {
    let at = Math.floor((i * texts.length) / count);
    const label = texts[at]!.domain;
    let tokens: number[] = [];
    while (tokens.length < promptTokens) {
      tokens = tokens.concat([...tokenizer.encode(texts[at]!.text)]);
      at = (at + 1) % texts.length;
    }
    return {
      tokens: Int32Array.from(tokens.slice(0, promptTokens)),
      maxNewTokens,
      sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
      stopStrings: [],
      ignoreEnd: true,
      label,
    };
  });
}
