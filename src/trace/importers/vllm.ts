import { SmoeError } from '../../errors.ts';
import { badRecord, badShape } from '../bad-record.ts';
import type { Where } from '../trace-sink.ts';
import { readAnswers } from './answers.ts';
import { asArray, asInteger, asObject, kindOf } from './fields.ts';
import type { TraceImporter } from './importer.ts';
import { readNumpy } from './npy.ts';
import { base64Bytes, type RoutedAnswer, type RoutedExperts, routedFromLists } from './routed-experts.ts';

type Fields = Record<string, unknown>;

/**
 * Answers of vLLM with `--enable-return-routed-experts`. Up to 0.21: lists, `prompt_routed_experts` [prompt][layers][k] of the answer
 * and `choices[i].routed_experts` [generated][layers][k], -1 at cached positions. From 0.22: `choices[i].routed_experts`, base64 of a
 * NumPy file [prompt + generated - 1][layers][k].
 */
export const vllm: TraceImporter = {
  name: 'vllm',
  describes: 'saved answers of a vLLM server with routed experts, JSON or one per line',
  recognises: ({ text }) => /^\s*[[{]/.test(text) && /"(choices|prompt_routed_experts)"\s*:/.test(text),
  read: (path, sink) => readAnswers(path, sink, parseVllmAnswer),
};

export function parseVllmAnswer(where: Where, answer: Fields): RoutedAnswer[] {
  const choices = asArray(where, 'choices', answer.choices);
  const answers = choices.map((choice, i) => {
    const whereChoice = choices.length === 1 ? where : (): string => `${where()}, choice ${i}`;
    return parseChoice(whereChoice, asObject(whereChoice, choice), answer);
  });
  assertOnePrompt(where, answer, choices as Fields[], answers);
  return answers;
}

/**
 * Without token ids only `usage` tells the length of the prompt: that of the prompts of all choices together. Where each choice answers
 * the same prompt P of n choices, the arrays hold n (P - 1) + generated rows.
 */
function assertOnePrompt(where: Where, answer: Fields, choices: Fields[], answers: RoutedAnswer[]): void {
  if (answers.length < 2 || answers.some(({ promptTokens }) => promptTokens.length > 0)) return;
  if (choices.some(({ routed_experts: routed }) => typeof routed !== 'string')) return;
  const rows = answers.flatMap(({ routed }) => routed).reduce((sum, { tokens }) => sum + tokens, 0);
  const { prompt_tokens: prompt, completion_tokens: generated } = usageOf(answer);
  if (rows === answers.length * (Number(prompt) - 1) + Number(generated)) return;
  throw badRecord(
    where(),
    `the answer does not say which of the ${prompt as number} prompt tokens are of which of its ${answers.length} choices`,
    'ask with return_token_ids, or one prompt a request',
  );
}

function parseChoice(where: Where, choice: Fields, answer: Fields): RoutedAnswer {
  const prompt = answer.prompt_routed_experts ?? choice.prompt_routed_experts ?? undefined;
  const generated = choice.routed_experts ?? undefined;
  if (prompt === undefined && generated === undefined) {
    throw new SmoeError(
      'TRACE_NO_ROUTING',
      `${where()}: the answer holds neither routed_experts nor prompt_routed_experts`,
      {
        hint: 'start vLLM with --enable-return-routed-experts; streamed answers lack them',
      },
    );
  }
  const promptTokens = tokenIds(where, 'prompt_token_ids', choice.prompt_token_ids ?? answer.prompt_token_ids);
  const completionTokens = tokenIds(where, 'token_ids', choice.token_ids);
  const promptRouted = decode(where, 'prompt_routed_experts', prompt);
  const promptLength = promptLengthOf(where, answer, promptTokens, promptRouted);
  const generatedRouted = decode(where, 'routed_experts', generated);
  if (generatedRouted !== undefined) {
    const completionLength = completionLengthOf(answer, completionTokens);
    // One array for the whole request ends before its last token; one for the generated part begins after the prompt.
    if (promptRouted !== undefined || Array.isArray(generated)) generatedRouted.start = promptLength;
    else if (completionLength !== undefined)
      generatedRouted.start = Math.max(0, promptLength + completionLength - 1 - generatedRouted.tokens);
  }
  if (promptRouted !== undefined && promptRouted.tokens > promptLength) {
    throw badShape(
      where(),
      `prompt_routed_experts: ${promptRouted.tokens} rows for ${promptLength} prompt tokens`,
      'the answer is damaged',
    );
  }
  return {
    label: '',
    promptTokens,
    completionTokens,
    promptLength,
    routed: [promptRouted, generatedRouted].filter((part) => part !== undefined),
  };
}

function promptLengthOf(where: Where, answer: Fields, tokens: number[], routed: RoutedExperts | undefined): number {
  if (tokens.length > 0) return tokens.length;
  const counted = usageOf(answer).prompt_tokens;
  if (counted !== undefined) return asInteger(where, 'usage.prompt_tokens', counted);
  if (routed !== undefined) return routed.tokens;
  throw badRecord(
    where(),
    'the answer does not say how long the prompt was',
    'keep usage or prompt_token_ids in the answers',
  );
}

/** Undefined where several choices share one count. */
function completionLengthOf(answer: Fields, tokens: number[]): number | undefined {
  if (tokens.length > 0) return tokens.length;
  const counted = usageOf(answer).completion_tokens;
  return Number.isInteger(counted) && (answer.choices as unknown[]).length === 1 ? (counted as number) : undefined;
}

function usageOf(answer: Fields): Fields {
  return typeof answer.usage === 'object' && answer.usage !== null ? (answer.usage as Fields) : {};
}

function tokenIds(where: Where, field: string, ids: unknown): number[] {
  if (ids === undefined || ids === null) return [];
  return asArray(where, field, ids).map((id, i) => asInteger(where, `${field}[${i}]`, id));
}

function decode(where: Where, field: string, value: unknown): RoutedExperts | undefined {
  if (value === undefined) return undefined;
  if (Array.isArray(value)) return value.length === 0 ? undefined : routedFromLists(where, field, value, 0);
  if (typeof value !== 'string')
    throw badRecord(where(), `${field}: expected lists or base64 text, found ${kindOf(value)}`);
  const { shape, values } = readNumpy(where, field, base64Bytes(where, field, value));
  const [tokens, layers, topK] = shape;
  if (shape.length !== 3 || layers! < 1 || topK! < 1)
    throw badShape(where(), `${field}: shape (${shape.join(', ')})`, 'expected [tokens][layers][k]');
  return tokens === 0 ? undefined : { start: 0, tokens: tokens!, layers: layers!, topK: topK!, ids: values };
}
