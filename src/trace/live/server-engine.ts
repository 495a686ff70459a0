import { SmoeError } from '../../errors.ts';
import type { AnswerParser } from '../importers/answers.ts';
import { parseSglangAnswer } from '../importers/sglang.ts';
import { parseVllmAnswer } from '../importers/vllm.ts';
import type { JsonServer } from './bounded-fetch.ts';

export interface LivePrompt {
  text: string;
  /** Such as a domain; empty when unknown. */
  label: string;
}

/** An engine whose servers return routed experts. */
export interface ServerEngine {
  name: string;
  /** `owned_by` of the server's /v1/models. */
  ownedBy: string;
  path: string;
  body(prompt: LivePrompt, model: string, maxNewTokens: number): object;
  parse: AnswerParser;
  /** What to do when an answer holds no routing. */
  launchHint: string;
}

/** Every engine; adding one adds an entry here. */
export const serverEngines: readonly ServerEngine[] = [
  {
    name: 'sglang',
    ownedBy: 'sglang',
    path: '/generate',
    // The log probabilities are asked for because they name the prompt's token ids in every version.
    body: ({ text }, _model, maxNewTokens) => ({
      text,
      sampling_params: { temperature: 0, max_new_tokens: maxNewTokens, ignore_eos: true },
      return_routed_experts: true,
      return_logprob: true,
      logprob_start_len: 0,
    }),
    parse: parseSglangAnswer,
    launchHint: 'start the SGLang server with --enable-return-routed-experts',
  },
  {
    name: 'vllm',
    ownedBy: 'vllm',
    path: '/v1/completions',
    body: ({ text }, model, maxNewTokens) => ({
      model,
      prompt: text,
      max_tokens: maxNewTokens,
      temperature: 0,
      ignore_eos: true,
      return_token_ids: true,
    }),
    parse: parseVllmAnswer,
    launchHint: 'start the vLLM server with --enable-return-routed-experts (0.21 or newer)',
  },
];

export const engineChoices: readonly string[] = ['auto', ...serverEngines.map(({ name }) => name)];

export interface FoundServer {
  engine: ServerEngine;
  /** As the server names it. */
  model: string;
}

/** Asks the server which model it serves and, for `auto`, which engine it is. */
export async function findServer(server: JsonServer, choice: string, signal: AbortSignal): Promise<FoundServer> {
  const { status, json } = await server.ask('/v1/models', undefined, signal);
  const first = (json as { data?: { id?: unknown; owned_by?: unknown }[] } | undefined)?.data?.[0];
  if (status !== 200 || typeof first?.id !== 'string') {
    const denied = status === 401 || status === 403;
    throw new SmoeError('TRACE_SERVER', `${server.base}/v1/models: status ${status}, no list of models`, {
      hint: denied ? 'give --api-key' : 'is it an SGLang or vLLM server, and has it loaded its model?',
    });
  }
  const engine = serverEngines.find(({ name, ownedBy }) =>
    choice === 'auto' ? ownedBy === first.owned_by : name === choice,
  );
  if (engine !== undefined) return { engine, model: first.id };
  throw new SmoeError(
    'TRACE_SERVER',
    `${server.base}: no known engine (models owned by ${JSON.stringify(first.owned_by)})`,
    {
      hint: `say which it is with --engine ${serverEngines.map(({ name }) => name).join(' or ')}`,
    },
  );
}
