import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parquetWriteBuffer } from 'hyparquet-writer';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';

/** Writers of every foreign format, so that what goes in can be compared with what an importer brings out. */

/** [L][k] ids of one row. */
export function layersOf(trace: RoutingTrace, row: number): number[][] {
  const { layers, topK } = trace.model;
  return Array.from({ length: layers }, (_, layer) => {
    const base = (row * layers + layer) * topK;
    return [...trace.experts.subarray(base, base + topK)];
  });
}

/** Rows of each request. */
export function requestRows(trace: RoutingTrace): number[][] {
  const rows: number[][] = trace.labels.map(() => []);
  for (let row = 0; row < trace.length; row++) rows[trace.request[row]!]!.push(row);
  return rows;
}

export function genericLines(trace: RoutingTrace): string[] {
  return Array.from({ length: trace.length }, (_, row) =>
    JSON.stringify({
      request: `r${trace.request[row]}`,
      position: trace.position[row],
      token: trace.token[row]! < 0 ? null : trace.token[row],
      phase: trace.phase[row] === 1 ? 'decode' : 'prefill',
      label: trace.labels[trace.request[row]!],
      // Best expert first, as routers report them.
      experts: layersOf(trace, row).map((ids) => ids.toReversed()),
    }),
  );
}

/** Steps of one request: the prompt, then a token each. A dense layer 0 comes first. */
export function chaosSteps(trace: RoutingTrace, rows: number[]): Record<string, number[][] | null>[] {
  const prompt = rows.filter((row) => trace.phase[row] === 0);
  const steps = [prompt, ...rows.filter((row) => trace.phase[row] === 1).map((row) => [row])];
  return steps.map((step) => ({
    '0': null,
    ...Object.fromEntries(
      Array.from({ length: trace.model.layers }, (_, layer) => [
        String(layer + 1),
        step.map((row) => layersOf(trace, row)[layer]!),
      ]),
    ),
  }));
}

/** Layer by layer and tokens of all requests mixed, as batches are computed. */
export function loggerLines(trace: RoutingTrace): string[] {
  const lines = [JSON.stringify({ type: 'meta', model_id: 'test', layers_logged: [3, 7], top_k: trace.model.topK })];
  for (let layer = 0; layer < trace.model.layers; layer++) {
    for (let row = trace.length - 1; row >= 0; row--) {
      const ids = layersOf(trace, row)[layer]!;
      lines.push(
        JSON.stringify({
          type: 'route',
          req_id: `r${trace.request[row]}`,
          token_idx: trace.position[row],
          layer: 3 + 4 * layer,
          topk_ids: ids,
          topk_weights: ids.map((id) => id / 16),
        }),
      );
    }
  }
  return lines.toSorted(
    (a, b) =>
      Number(b.includes('meta')) - Number(a.includes('meta')) ||
      Number(a.includes('"r1"')) - Number(b.includes('"r1"')),
  );
}

export interface RouteRecord {
  tokens: number[];
  positions: number[];
  /** [n][L][k] */
  experts: number[][][];
}

/** Evaluations as llama.cpp records them: the prompt in one, then a token each. */
export function llamaEvaluations(trace: RoutingTrace): RouteRecord[] {
  return requestRows(trace).flatMap((rows) => {
    const prompt = rows.filter((row) => trace.phase[row] === 0);
    const steps = [prompt, ...rows.filter((row) => trace.phase[row] === 1).map((row) => [row])];
    return steps.map((step) => ({
      tokens: step.map((row) => trace.token[row]!),
      positions: step.map((row) => trace.position[row]!),
      experts: step.map((row) => layersOf(trace, row)),
    }));
  });
}

export function llamaBytes(evaluations: RouteRecord[], firstLayer: number = 1): Buffer {
  const parts: Buffer[] = [int32s([0x43525452, 1])];
  evaluations.forEach(({ tokens, positions, experts }, sequence) => {
    parts.push(Buffer.from([0]), int32s([sequence, tokens.length, ...tokens, ...positions]));
    for (let layer = 0; layer < experts[0]!.length; layer++) {
      const ids = experts.map((row) => row[layer]!);
      parts.push(Buffer.from([1]), int32s([sequence, firstLayer + layer, ids[0]!.length, ids.length, ...ids.flat()]));
    }
  });
  return Buffer.concat(parts);
}

/** A folder like flame-moe-290m/ with the tokens in two samples files. Scores are halves of the id. */
export function writeFlame(folder: string, trace: RoutingTrace): void {
  const { length } = trace;
  const half = Math.ceil(length / 3);
  mkdirSync(join(folder, 'samples'), { recursive: true });
  mkdirSync(join(folder, 'actives', 'iter_0540'), { recursive: true });
  mkdirSync(join(folder, 'actives', 'iter_5473'), { recursive: true });
  for (const [name, from, to] of [
    ['000', 0, half],
    ['001', half, length],
  ] as const) {
    const bytes = parquetWriteBuffer({
      columnData: [{ name: 'token_id', data: trace.token.slice(from, to), type: 'INT32' }],
    });
    writeFileSync(join(folder, 'samples', `${name}.parquet`), Buffer.from(bytes));
  }
  for (let layer = 0; layer < trace.model.layers; layer++) {
    const ids = Array.from({ length }, (_, row) => layersOf(trace, row)[layer]!);
    writeFileSync(
      join(folder, 'actives', 'iter_5473', `layer_${String(layer + 2).padStart(2, '0')}.parquet`),
      flameLayer(ids),
    );
  }
}

export function flameLayer(ids: number[][]): Buffer {
  const list = (name: string): object[] => [
    { name, repetition_type: 'OPTIONAL', num_children: 1, converted_type: 'LIST' },
    { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
  ];
  const bytes = parquetWriteBuffer({
    schema: [
      { name: 'root', num_children: 2 },
      ...list('scores'),
      {
        name: 'element',
        type: 'FIXED_LEN_BYTE_ARRAY',
        type_length: 2,
        logical_type: { type: 'FLOAT16' },
        repetition_type: 'OPTIONAL',
      },
      ...list('indices'),
      { name: 'element', type: 'INT32', converted_type: 'INT_16', repetition_type: 'OPTIONAL' },
    ] as never,
    columnData: [
      { name: 'scores', data: ids.map((row) => row.map((id) => id / 2)) },
      { name: 'indices', data: ids },
    ],
  });
  return Buffer.from(bytes);
}

/** An SGLang /generate answer; routing of all positions but the last. Layer 0 is dense (zeros). */
export function sglangAnswer(
  trace: RoutingTrace,
  rows: number[],
  type: 'int32' | 'uint16' | 'uint8' | undefined,
  start: number = 0,
): Record<string, unknown> {
  const prompt = rows.filter((row) => trace.phase[row] === 0);
  const completion = rows.slice(prompt.length);
  const ids = rows
    .slice(start, -1)
    .flatMap((row) => [Array<number>(trace.model.topK).fill(0), ...layersOf(trace, row)].flat());
  const bytes = {
    int32: int32s,
    uint16: (values: number[]) => Buffer.from(Uint16Array.from(values).buffer),
    uint8: (values: number[]) => Buffer.from(values),
  };
  return {
    text: 'text',
    output_ids: completion.map((row) => trace.token[row]),
    meta_info: {
      id: 'x',
      prompt_tokens: prompt.length,
      completion_tokens: completion.length,
      input_token_logprobs: prompt.map((row) => [null, trace.token[row], null]),
      routed_experts: bytes[type ?? 'int32'](ids).toString('base64'),
      ...(type === undefined ? {} : { routed_experts_dtype: type }),
      ...(start === 0 ? {} : { routed_experts_start_len: start }),
    },
  };
}

/** A vLLM 0.21 answer: lists; the first `cached` prompt positions are -1. */
export function vllmListAnswer(trace: RoutingTrace, rows: number[], cached: number = 0): Record<string, unknown> {
  const prompt = rows.filter((row) => trace.phase[row] === 0);
  const completion = rows.slice(prompt.length);
  return {
    id: 'cmpl-1',
    object: 'text_completion',
    prompt_routed_experts: prompt.map((row, i) =>
      layersOf(trace, row).map((ids) => (i < cached ? ids.map(() => -1) : ids)),
    ),
    choices: [
      {
        index: 0,
        text: 'text',
        prompt_token_ids: prompt.map((row) => trace.token[row]),
        token_ids: completion.map((row) => trace.token[row]),
        routed_experts: completion.slice(0, -1).map((row) => layersOf(trace, row)),
      },
    ],
    usage: { prompt_tokens: prompt.length, completion_tokens: completion.length },
  };
}

/** A vLLM 0.22 answer: one NumPy array of prompt + generated - 1 rows, less those before `start`. */
export function vllmNumpyAnswer(trace: RoutingTrace, rows: number[], start: number = 0): Record<string, unknown> {
  const answer = vllmListAnswer(trace, rows) as { prompt_routed_experts?: unknown; choices: Record<string, unknown>[] };
  const { layers, topK } = trace.model;
  delete answer.prompt_routed_experts;
  const kept = rows.slice(start, -1);
  answer.choices[0]!.routed_experts = numpy(
    [kept.length, layers, topK],
    '<i2',
    int16s(kept.flatMap((row) => layersOf(trace, row).flat())),
  ).toString('base64');
  return answer;
}

export function numpy(shape: number[], type: string, data: Buffer): Buffer {
  const header = `{'descr': '${type}', 'fortran_order': False, 'shape': (${shape.join(', ')},), }`;
  const padded = header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11, ' ') + '\n';
  const length = Buffer.alloc(2);
  length.writeUInt16LE(padded.length);
  return Buffer.concat([Buffer.from('\x93NUMPY\x01\x00', 'latin1'), length, Buffer.from(padded, 'latin1'), data]);
}

export function int32s(values: number[]): Buffer {
  return Buffer.from(Int32Array.from(values).buffer);
}

export function int16s(values: number[]): Buffer {
  return Buffer.from(Int16Array.from(values).buffer);
}
