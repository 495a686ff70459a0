import type { RequestOutput, RunReport } from '../../src/engine/api.ts';

/** A run of two prompts over a vocabulary of three, for tests of reports; `change` replaces fields. */
export function runReport(change: Partial<RunReport> = {}): RunReport {
  const output = (tokens: number[], ttftMs: number): RequestOutput => ({
    tokens,
    finishReason: 'length',
    dataParallelRank: 0,
    ttftMs,
    tpotMs: 10,
    e2eMs: ttftMs + 10,
  });
  return {
    outputs: [output([1, 2], 100), output([0, 1], 200)],
    bytes: { attention: 1000, dispatch: 3000, combine: 3000, control: 24, total: 7024 },
    messages: 12,
    compactRows: false,
    oneShotTokens: 0,
    localActivationRate: 0.25,
    remoteDevicesPerToken: 2.75,
    loadImbalance: 1.5,
    recall: Number.NaN,
    layers: [],
    promptTokens: 10,
    generatedTokens: 4,
    wallMs: 500,
    steps: [],
    phases: [],
    timeline: undefined,
    outputSha256: 'tokens',
    logitsSha256: 'logits',
    logits: Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    logitsRows: [
      { request: 0, position: 4 },
      { request: 0, position: 5 },
      { request: 1, position: 4 },
      { request: 1, position: 5 },
    ],
    trace: undefined,
    routing: undefined,
    firstRecordRow: new Int32Array(2),
    ...change,
  };
}
