import type { FinishReason, Layout, RunReport, ScheduleName, TokenEvent, TransportName } from '../engine/api.ts';
import type { PredictorName } from '../plan/plan.ts';
import { formatBytes, formatMilliseconds } from './format.ts';
import { byteFigures, type ByteFigures } from './json.ts';
import { ranksOf } from './shared-args.ts';
import { renderTable } from './table.ts';

/** One generated token, with the engine step that made it. */
export interface TokenStatistics {
  index: number;
  token: number;
  phase: string;
  /** Tokens the step computed. */
  stepTokens: number;
  milliseconds: number;
  computeMs: number;
  communicationMs: number;
  bytes: number;
}

/** What `smoe generate --json` prints. */
export interface GenerateReport {
  model: string;
  layout: { dp: number; tp: number; ep: number };
  transport: string;
  plan: string;
  schedule: ScheduleName;
  predictor: PredictorName | null;
  text: string;
  finishReason: FinishReason;
  promptTokens: number;
  generatedTokens: number;
  ttftMs: number;
  tpotMs: number;
  e2eMs: number;
  tokensPerSecond: number;
  bytes: ByteFigures;
  messages: number;
  localActivationRate: number;
  remoteDevicesPerToken: number;
  outputSha256: string;
  /** With --stats. */
  tokens?: TokenStatistics[];
}

export interface GenerateFacts {
  model: string;
  layout: Layout;
  transport: TransportName;
  plan: string;
  schedule: ScheduleName;
  predictor: PredictorName;
  text: string;
  tokens: TokenStatistics[] | undefined;
}

export function assembleGenerateReport(facts: GenerateFacts, run: RunReport): GenerateReport {
  const { model, layout, transport, plan, schedule, predictor, text, tokens } = facts;
  const output = run.outputs[0]!;
  return {
    model,
    layout: { dp: layout.dataParallel, tp: layout.tensorParallel, ep: ranksOf(layout) },
    transport,
    plan,
    schedule,
    predictor: schedule === 'speculative' ? predictor : null,
    text,
    finishReason: output.finishReason,
    promptTokens: run.promptTokens,
    generatedTokens: run.generatedTokens,
    ttftMs: output.ttftMs,
    tpotMs: output.tpotMs,
    e2eMs: output.e2eMs,
    tokensPerSecond: run.generatedTokens / (output.e2eMs / 1000),
    bytes: byteFigures(run.bytes),
    messages: run.messages,
    localActivationRate: run.localActivationRate,
    remoteDevicesPerToken: run.remoteDevicesPerToken,
    outputSha256: run.outputSha256,
    ...(tokens === undefined ? {} : { tokens }),
  };
}

export function tokenStatistics({ index, token, step }: TokenEvent): TokenStatistics {
  const { phase, tokens: stepTokens, milliseconds, computeMs, communicationMs } = step;
  const bytes = Object.values(step.bytes).reduce((sum, value) => sum + value, 0);
  return { index, token, phase, stepTokens, milliseconds, computeMs, communicationMs, bytes };
}

/** A line per token: where its time went. */
export function renderTokenStatistics(tokens: TokenStatistics[]): string {
  return renderTable(
    [
      { title: 'token', align: 'right' },
      { title: 'step', align: 'left' },
      { title: 'tokens in step', align: 'right' },
      { title: 'time', align: 'right' },
      { title: 'compute', align: 'right' },
      { title: 'communication', align: 'right' },
      { title: 'bytes between ranks', align: 'right' },
    ],
    tokens.map((token) => [
      String(token.index),
      token.phase,
      String(token.stepTokens),
      formatMilliseconds(token.milliseconds),
      formatMilliseconds(token.computeMs),
      formatMilliseconds(token.communicationMs),
      formatBytes(token.bytes),
    ]),
  );
}
