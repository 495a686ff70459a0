import { SmoeError } from '../../errors.ts';
import { badRecord, badShape } from '../bad-record.ts';
import type { Where } from '../trace-sink.ts';
import { type AnswerContext, readAnswers } from './answers.ts';
import { asArray, asInteger, kindOf } from './fields.ts';
import type { TraceImporter } from './importer.ts';
import {
  base64Bytes,
  integersFrom,
  isIntegerType,
  type RoutedAnswer,
  type RoutedExperts,
  routedFromLists,
} from './routed-experts.ts';

type Fields = Record<string, unknown>;

/**
 * Answers of SGLang with `return_routed_experts`: of `/generate` (`meta_info.routed_experts`) and of the OpenAI routes (under
 * `sgl_ext` or `sglext`, of the choice or the answer). Base64, [tokens][num_hidden_layers][k], int32 or
 * `routed_experts_dtype`, for positions [start_len, seqlen - 1).
 */
export const sglang: TraceImporter = {
  name: 'sglang',
  describes: 'saved answers of an SGLang server with routed experts, JSON or one per line',
  recognises: ({ text }) => /^\s*[[{]/.test(text) && /"(meta_info|sgl_ext|sglext)"\s*:/.test(text),
  read: (path, sink) => readAnswers(path, sink, parseSglangAnswer),
};

export function parseSglangAnswer(where: Where, answer: Fields, context: AnswerContext): RoutedAnswer[] {
  if (answer.choices === undefined) return [parseOne(where, answer, [fieldsOf(answer.meta_info)], answer, context)];
  const choices = asArray(where, 'choices', answer.choices);
  return choices.map((choice, i) => {
    const whereChoice = choices.length === 1 ? where : (): string => `${where()}, choice ${i}`;
    const own = fieldsOf(choice);
    const extensions = [
      own.meta_info,
      own.sgl_ext,
      own.sglext,
      ...(choices.length === 1 ? [answer.sgl_ext, answer.sglext, answer.meta_info] : []),
    ];
    return parseOne(whereChoice, own, extensions.map(fieldsOf), answer, context);
  });
}

/** @param places where routing and token counts may be, in order */
function parseOne(where: Where, own: Fields, places: Fields[], answer: Fields, context: AnswerContext): RoutedAnswer {
  const place = places.find(({ routed_experts: routed }) => routed !== undefined && routed !== null);
  if (place === undefined) {
    throw new SmoeError('TRACE_NO_ROUTING', `${where()}: the answer holds no routed_experts`, {
      hint: 'start SGLang with --enable-return-routed-experts and ask with "return_routed_experts": true',
    });
  }
  const from = (name: string): unknown =>
    [...places, own, answer].map((fields) => fields[name]).find((value) => value !== undefined && value !== null);
  const usage = fieldsOf(answer.usage);
  const promptLength = asInteger(where, 'prompt_tokens', from('prompt_tokens') ?? usage.prompt_tokens);
  const completionLength = asInteger(where, 'completion_tokens', from('completion_tokens') ?? usage.completion_tokens);
  const start = asInteger(where, 'routed_experts_start_len', from('routed_experts_start_len') ?? 0);
  const routed = decode(where, place, start, promptLength + completionLength - 1 - start, context);
  return {
    label: '',
    promptTokens: tokenIds(
      where,
      from('prompt_token_ids') ?? from('input_ids'),
      from('input_token_logprobs'),
      promptLength,
    ),
    completionTokens: tokenIds(
      where,
      from('output_ids') ?? from('token_ids'),
      from('output_token_logprobs'),
      completionLength,
    ),
    promptLength,
    routed: routed === undefined ? [] : [routed],
  };
}

function decode(
  where: Where,
  place: Fields,
  start: number,
  tokens: number,
  { topK }: AnswerContext,
): RoutedExperts | undefined {
  const field = 'routed_experts';
  if (Array.isArray(place[field])) return routedFromLists(where, field, place[field], start);
  const type = place.routed_experts_dtype ?? 'int32';
  if (!isIntegerType(type))
    throw badRecord(where(), `routed_experts_dtype: ${kindOf(type)} is not int32, uint16 or uint8`);
  const ids = integersFrom(where, field, base64Bytes(where, field, place[field]), type);
  if (tokens < 0) throw badRecord(where(), `routed_experts_start_len: ${start} is beyond the answer's tokens`);
  if (ids.length === 0) return undefined;
  if (topK === undefined) {
    throw badShape(
      where(),
      `${field} does not say how many experts a token has`,
      "give --experts-per-token, or --model with the model's directory",
    );
  }
  const layers = ids.length / (tokens * topK);
  if (!Number.isInteger(layers) || layers < 1) {
    throw badShape(
      where(),
      `${field}: ${ids.length} ids are not ${tokens} tokens x layers x ${topK}`,
      'is --experts-per-token right, and the answer whole?',
    );
  }
  return { start, tokens, layers, topK, ids };
}

/** From a list of ids, or from entries [logprob, id, text]; none when neither covers every token. */
function tokenIds(where: Where, ids: unknown, logprobs: unknown, count: number): number[] {
  if (Array.isArray(ids) && ids.length >= count)
    return ids.slice(0, count).map((id, i) => asInteger(where, `token id ${i}`, id));
  if (!Array.isArray(logprobs) || logprobs.length < count) return [];
  return logprobs
    .slice(0, count)
    .map((entry: unknown, i) =>
      asInteger(where, `token_logprobs[${i}][1]`, Array.isArray(entry) ? entry[1] : undefined),
    );
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}
