import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { SmoeError } from '../../src/errors.ts';
import { importTrace, recognise, type ImportOptions, type ImportReport } from '../../src/trace/importers/index.ts';
import { readTrace } from '../../src/trace/parquet.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { unknownModel } from '../../src/trace/trace-sink.ts';
import * as foreign from './foreign-formats.ts';
import { syntheticTrace } from './synthetic-trace.ts';

const trace: RoutingTrace = syntheticTrace({
  layers: 2,
  experts: 16,
  topK: 3,
  vocabularySize: 90,
  requests: 4,
  tokensPerRequest: 10,
  seed: 6,
});
const rows = foreign.requestRows(trace);
const model = { ...unknownModel, fingerprint: 'foreign', experts: 16, topK: 3 };

describe('importers', () => {
  let directory: string;
  let out: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'smoe-import-'));
    out = join(directory, 'out.parquet');
  });
  after(() => rmSync(directory, { recursive: true }));

  const file = (name: string, content: string | Buffer): string => {
    const path = join(directory, name);
    writeFileSync(path, content);
    return path;
  };
  const lines = (values: unknown[]): string =>
    values.map((value) => `${typeof value === 'string' ? value : JSON.stringify(value)}\n`).join('');
  async function imported(
    path: string,
    format: string,
    options: Partial<ImportOptions> = {},
  ): Promise<{ report: ImportReport; got: RoutingTrace }> {
    const report = await importTrace(path, out, { model, ...options });
    assert.equal(report.format, format);
    return { report, got: await readTrace(out, { weights: true }) };
  }
  /** Compares everything that the format can carry. */
  function assertSame(got: RoutingTrace, keep: (row: number) => boolean = () => true, tokens: boolean = true): void {
    const kept = Array.from({ length: trace.length }, (_, row) => row).filter(keep);
    assert.deepEqual(got.experts, Uint16Array.from(kept.flatMap((row) => foreign.layersOf(trace, row).flat())));
    for (const column of ['request', 'position'] as const)
      assert.deepEqual(
        [...got[column]],
        kept.map((row) => trace[column][row]),
      );
    assert.deepEqual(
      [...got.token],
      kept.map((row) => (tokens ? trace.token[row] : -1)),
    );
  }
  const refused = (path: string, code: string, message: RegExp, options: Partial<ImportOptions> = {}): Promise<void> =>
    assert.rejects(importTrace(path, out, { model, ...options }), (error) => {
      assert.ok(error instanceof SmoeError, String((error as Error).stack));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, message);
      assert.ok(error.hint !== undefined && error.hint !== '');
      return true;
    });

  describe('jsonl', () => {
    it('brings everything over', async () => {
      const { report, got } = await imported(file('a.jsonl', lines(foreign.genericLines(trace))), 'jsonl');
      assertSame(got);
      assert.deepEqual(got.phase, trace.phase);
      assert.deepEqual(got.labels, trace.labels);
      assert.equal(report.rowsWithToken, trace.length);
    });

    it('takes the number of experts from the data and says so', async () => {
      const { report, got } = await imported(file('b.jsonl', lines(foreign.genericLines(trace))), 'jsonl', {
        model: unknownModel,
      });
      assert.equal(got.model.experts, Math.max(...trace.experts) + 1);
      assert.match(report.notes.join(), /--experts/);
      assert.match(report.notes.join(), /--vocabulary/);
    });

    it('works without token ids, and says what then does not', async () => {
      const unknown = { ...trace, token: trace.token.map(() => -1) };
      const { report, got } = await imported(file('c.jsonl', lines(foreign.genericLines(unknown))), 'jsonl');
      assert.equal(got.model.vocabularySize, 0);
      assert.match(report.notes.join(), /token ids are unknown/);
    });

    it('keeps the first layers and stops after so many rows', async () => {
      const path = file('d.jsonl', lines(foreign.genericLines(trace)));
      const { got } = await imported(path, 'jsonl', { model: { ...model, layers: 1 }, mostRows: 13 });
      assert.equal(got.model.layers, 1);
      assert.equal(got.length, 13);
      assert.equal(got.labels.length, 2);
    });

    const record = (change: object): string => {
      const first = JSON.parse(foreign.genericLines(trace)[0]!) as object;
      return lines([foreign.genericLines(trace)[0]!, { ...first, position: 1, ...change }]);
    };
    const bad: [string, string, string, RegExp][] = [
      [
        'an expert out of range',
        record({
          experts: [
            [1, 2, 16],
            [1, 2, 3],
          ],
        }),
        'TRACE_BAD_RECORD',
        /line 2: MoE layer 0: expert 16 of 16/,
      ],
      [
        'a negative expert',
        record({
          experts: [
            [1, 2, 3],
            [-1, 2, 3],
          ],
        }),
        'TRACE_BAD_RECORD',
        /line 2: MoE layer 1: expert -1/,
      ],
      [
        'a fractional expert',
        record({
          experts: [
            [1, 2, 3],
            [1.5, 2, 3],
          ],
        }),
        'TRACE_BAD_RECORD',
        /expert 1.5/,
      ],
      [
        'an expert that is text',
        record({
          experts: [
            [1, 2, '3'],
            [1, 2, 3],
          ],
        }),
        'TRACE_BAD_RECORD',
        /experts\[0\]\[2\]: expected a number, found "3"/,
      ],
      [
        'an expert twice',
        record({
          experts: [
            [1, 2, 2],
            [1, 2, 3],
          ],
        }),
        'TRACE_BAD_RECORD',
        /expert 2 appears twice/,
      ],
      ['a missing layer', record({ experts: [[1, 2, 3]] }), 'TRACE_SHAPE', /line 2: 1 MoE layers/],
      [
        'layers of different k',
        record({
          experts: [
            [1, 2, 3],
            [1, 2],
          ],
        }),
        'TRACE_BAD_RECORD',
        /experts\[1\]: 2 experts, 3 in/,
      ],
      [
        'rows of different k',
        record({
          experts: [
            [1, 2],
            [1, 2],
          ],
        }),
        'TRACE_SHAPE',
        /2 experts per token, expected 3/,
      ],
      ['no experts', record({ experts: undefined }), 'TRACE_BAD_RECORD', /experts: expected a list, found nothing/],
      ['no layers', record({ experts: [] }), 'TRACE_SHAPE', /0 MoE layers/],
      [
        'a position that does not ascend',
        record({ position: 0 }),
        'TRACE_BAD_RECORD',
        /line 2: position 0 does not ascend/,
      ],
      ['a negative token', record({ token: -3 }), 'TRACE_BAD_RECORD', /token: expected an integer from 0/],
      ['an unknown phase', record({ phase: 'warm-up' }), 'TRACE_BAD_RECORD', /phase: expected "prefill"/],
      ['no request', record({ request: null }), 'TRACE_BAD_RECORD', /request: expected a name or number, found null/],
      [
        'a line that is no object',
        `${record({})}[1]\n`,
        'TRACE_BAD_RECORD',
        /line 3: expected an object, found a list/,
      ],
      ['a line cut off', record({}).slice(0, -20), 'TRACE_BAD_RECORD', /line 2: not JSON/],
      [
        'a request that comes back',
        lines([record({}), record({ request: 'r9' }).split('\n')[1]!, record({})]),
        'TRACE_BAD_RECORD',
        /goes on after another/,
      ],
    ];
    for (const [what, content, code, message] of bad) {
      it(`refuses ${what}`, async () => {
        await refused(file('bad.jsonl', content), code, message);
        assert.ok(!readdirSync(directory).some((name) => name.endsWith('.tmp')));
      });
    }

    it('reads long files in constant memory', async () => {
      const long = syntheticTrace({
        layers: 2,
        experts: 8,
        topK: 2,
        vocabularySize: 20,
        requests: 30,
        tokensPerRequest: 800,
        seed: 1,
      });
      const path = file('long.jsonl', lines(foreign.genericLines(long)));
      await importTrace(path, out, { model: unknownModel });
      assert.deepEqual((await readTrace(out)).experts, long.experts);
    });
  });

  describe('chaos', () => {
    it('brings a folder of requests over, subfolders as labels', async () => {
      const folder = join(directory, 'chaos');
      rows.forEach((ofRequest, request) => {
        mkdirSync(join(folder, `subject-${request >> 1}`), { recursive: true });
        writeFileSync(
          join(folder, `subject-${request >> 1}`, `${request}.json`),
          JSON.stringify(foreign.chaosSteps(trace, ofRequest)),
        );
      });
      const { got } = await imported(folder, 'chaos');
      assertSame(got, () => true, false);
      assert.deepEqual(got.phase, trace.phase);
      assert.deepEqual(got.labels, ['subject-0', 'subject-0', 'subject-1', 'subject-1']);
    });

    it('names step, token and layer of what is wrong', async () => {
      const steps = foreign.chaosSteps(trace, rows[0]!);
      assert.equal(recognise(file('one.json', JSON.stringify(steps))).name, 'chaos');
      const damaged = structuredClone(steps);
      damaged[2]!['2']![0]![1] = 77;
      await refused(
        file('one.json', JSON.stringify(damaged)),
        'TRACE_BAD_RECORD',
        /step 2, token 0: MoE layer 1: expert 77 of 16/,
      );
      delete damaged[2]!['2'];
      await refused(file('one.json', JSON.stringify(damaged)), 'TRACE_SHAPE', /step 2, token 0: 1 MoE layers/);
      damaged[0]!['1']!.pop();
      await refused(
        file('one.json', JSON.stringify(damaged)),
        'TRACE_BAD_RECORD',
        /step 0: layer 2: 5 tokens, 4 in layer 1/,
      );
      await refused(
        file('one.json', JSON.stringify([{ '0': null }])),
        'TRACE_BAD_RECORD',
        /step 0: no layer with experts/,
      );
    });
  });

  describe('vllm-logger', () => {
    it('puts layers and tokens together in whatever order they come', async () => {
      const { got } = await imported(file('logger.jsonl', lines(foreign.loggerLines(trace))), 'vllm-logger');
      assert.equal(got.length, trace.length);
      const order = [...new Set(foreign.loggerLines(trace).flatMap((line) => /"r(\d)"/.exec(line)?.[1] ?? []))].map(
        Number,
      );
      const expected = order.flatMap((request) => rows[request]!);
      assert.deepEqual(got.experts, Uint16Array.from(expected.flatMap((row) => foreign.layersOf(trace, row).flat())));
      assert.deepEqual(
        got.weights,
        Float32Array.from(got.experts, (id) => id / 16),
      );
    });

    it('refuses a missing layer, a repeated record and unknown types', async () => {
      const all = foreign.loggerLines(trace);
      await refused(file('l.jsonl', lines(all.slice(0, -1))), 'TRACE_SHAPE', /request r1, token 0: layer 7 is missing/);
      await refused(file('l.jsonl', lines([...all, all[5]!])), 'TRACE_BAD_RECORD', /was routed in line 6 already/);
      await refused(file('l.jsonl', lines([all[0]!, { type: 'other' }])), 'TRACE_BAD_RECORD', /type: expected/);
      await refused(file('l.jsonl', lines(all.slice(0, 1))), 'TRACE_EMPTY', /no routed token/);
    });
  });

  describe('llama-cpp', () => {
    it('brings sequences over', async () => {
      const { got } = await imported(file('a.rtrc', foreign.llamaBytes(foreign.llamaEvaluations(trace))), 'llama-cpp');
      assertSame(got);
      assert.deepEqual(got.phase, trace.phase);
    });

    it('takes rejected drafts back', async () => {
      const evaluations = foreign.llamaEvaluations(trace);
      const draft = (i: number, position: number): foreign.RouteRecord => ({
        ...evaluations[i]!,
        positions: [position],
      });
      // Two drafts after the first request's prompt, both rejected.
      evaluations.splice(1, 0, draft(3, 5), draft(4, 6));
      const { got } = await imported(file('b.rtrc', foreign.llamaBytes(evaluations)), 'llama-cpp');
      assertSame(got);
    });

    it('says what the last layer lacks and how to leave it out', async () => {
      const bytes = foreign.llamaBytes([{ tokens: [1, 2], positions: [0, 1], experts: [[[1, 2, 3]], [[4, 5, 6]]] }]);
      const partial = Buffer.concat([bytes, Buffer.from([1]), foreign.int32s([0, 2, 3, 1, 7, 8, 9])]);
      await refused(file('c.rtrc', partial), 'TRACE_SHAPE', /layer 2: routing of 1 of 2 tokens/);
      const { got } = await imported(file('c.rtrc', partial), 'llama-cpp', { model: { ...model, layers: 1 } });
      assert.deepEqual([...got.experts], [1, 2, 3, 4, 5, 6]);
    });

    it('refuses mixed sequences, foreign versions and padding', async () => {
      const mixed = { tokens: [1, 2, 3], positions: [0, 7, 1], experts: [[[1, 2, 3]], [[1, 2, 3]], [[1, 2, 3]]] };
      await refused(file('d.rtrc', foreign.llamaBytes([mixed])), 'TRACE_BAD_RECORD', /token 1: pos: 7 after 0/);
      await refused(file('d.rtrc', foreign.int32s([0x43525452, 2])), 'TRACE_BAD_RECORD', /version 2/);
      const padded = Buffer.concat([foreign.llamaBytes(foreign.llamaEvaluations(trace)), Buffer.alloc(40)]);
      await refused(file('d.rtrc', padded), 'TRACE_BAD_RECORD', /n: 0 tokens/);
      await refused(
        file(
          'd.rtrc',
          Buffer.concat([foreign.int32s([0x43525452, 1]), Buffer.from([0]), foreign.int32s([0, 9_000_000])]),
        ),
        'TRACE_TRUNCATED',
        /tok needs 36000000 bytes/,
      );
    });
  });

  describe('flame-moe', () => {
    it('joins samples and layers by row, the last iteration by default', async () => {
      const folder = join(directory, 'flame');
      foreign.writeFlame(folder, trace);
      const { got } = await imported(folder, 'flame-moe', { importer: { sequenceTokens: 10 } });
      assertSame(got);
      assert.deepEqual(
        got.weights,
        Float32Array.from(got.experts, (id) => id / 2),
      );
      await refused(folder, 'TRACE_FORMAT', /no file like/, { importer: { iteration: 540 } });
      await refused(folder, 'TRACE_FORMAT', /only iterations 0540, 5473, not 7/, { importer: { iteration: 7 } });
    });

    it('refuses files that do not match, are cut off or lack columns', async () => {
      const folder = join(directory, 'flame-bad');
      cpSync(join(directory, 'flame'), folder, { recursive: true });
      const layer = join(folder, 'actives', 'iter_5473', 'layer_03.parquet');
      const whole = readFileSync(layer);
      writeFileSync(layer, whole.subarray(0, -9));
      await refused(folder, 'TRACE_CORRUPT', /layer_03.parquet/);
      writeFileSync(layer, foreign.flameLayer(Array.from({ length: 39 }, () => [1, 2, 3])));
      await refused(folder, 'TRACE_SHAPE', /layer_03.parquet: holds 39 rows/);
      writeFileSync(layer, foreign.flameLayer(Array.from({ length: 40 }, (_, i) => (i === 7 ? [1, 2] : [1, 2, 3]))));
      await refused(folder, 'TRACE_SHAPE', /layer_03.parquet, row 7: 2 indices/);
      writeFileSync(layer, readFileSync(join(folder, 'samples', '000.parquet')));
      await refused(folder, 'TRACE_SHAPE', /rows/);
      writeFileSync(layer, whole);
      rmSync(join(folder, 'samples', '001.parquet'));
      await refused(folder, 'TRACE_SHAPE', /tokens for 40 routed rows/);
    });
  });

  describe('sglang', () => {
    const notLast = (row: number): boolean => trace.position[row] !== 9;
    for (const type of [undefined, 'int32', 'uint16', 'uint8'] as const) {
      it(`reads /generate answers of ${type ?? 'no named'} type and leaves dense layers out`, async () => {
        const answers = rows.map((ofRequest) => foreign.sglangAnswer(trace, ofRequest, type));
        const { report, got } = await imported(file('s.jsonl', lines(answers)), 'sglang');
        assertSame(got, notLast);
        assert.match(report.notes.join(), /1 of 3 layers are dense/);
      });
    }

    it('reads sgl_ext and sglext of OpenAI answers, lists of answers, and a start', async () => {
      const answers = rows.map((ofRequest, request) => {
        const { meta_info: info, output_ids: outputs } = foreign.sglangAnswer(trace, ofRequest, 'uint8', 2) as {
          meta_info: Record<string, unknown>;
          output_ids: number[];
        };
        const extension = {
          routed_experts: info.routed_experts,
          routed_experts_dtype: 'uint8',
          routed_experts_start_len: 2,
          prompt_token_ids: ofRequest.slice(0, 5).map((row) => trace.token[row]),
        };
        const usage = { prompt_tokens: info.prompt_tokens, completion_tokens: info.completion_tokens };
        return request % 2 === 0
          ? { choices: [{ index: 0, token_ids: outputs, sgl_ext: extension }], usage }
          : { choices: [{ index: 0, token_ids: outputs }], sglext: extension, usage };
      });
      const { got } = await imported(file('s.json', JSON.stringify(answers, undefined, 2)), 'sglang');
      assertSame(got, (row) => notLast(row) && trace.position[row]! >= 2);
    });

    it('says which flag is missing, and what the bytes do not say', async () => {
      const answer = foreign.sglangAnswer(trace, rows[0]!, 'uint8') as { meta_info: Record<string, unknown> };
      await refused(file('s.jsonl', lines([answer])), 'TRACE_SHAPE', /does not say how many experts/, {
        model: unknownModel,
      });
      await refused(file('s.jsonl', lines([answer])), 'TRACE_SHAPE', /81 ids are not 9 tokens x layers x 4/, {
        model: { ...model, topK: 4 },
      });
      await refused(
        file('s.jsonl', lines([{ ...answer, meta_info: { ...answer.meta_info, routed_experts: 'AAA$' } }])),
        'TRACE_BAD_RECORD',
        /line 1: routed_experts: not base64/,
      );
      await refused(
        file('s.jsonl', lines([{ ...answer, meta_info: { ...answer.meta_info, routed_experts_dtype: 'float32' } }])),
        'TRACE_BAD_RECORD',
        /"float32" is not int32/,
      );
      delete answer.meta_info.routed_experts;
      await assert.rejects(importTrace(file('s.jsonl', lines([answer])), out, { model }), {
        code: 'TRACE_NO_ROUTING',
        hint: /--enable-return-routed-experts/,
      });
    });
  });

  describe('vllm', () => {
    const notLast = (row: number): boolean => trace.position[row] !== 9;
    it('reads lists and leaves cached positions out', async () => {
      const answers = rows.map((ofRequest) => foreign.vllmListAnswer(trace, ofRequest, 2));
      const { report, got } = await imported(file('v.jsonl', lines(answers)), 'vllm');
      assertSame(got, (row) => notLast(row) && trace.position[row]! >= 2);
      assert.match(report.notes.join(), /8 positions came without routing/);
      assert.equal(got.phase[3], 1);
    });

    it('reads NumPy arrays, from a start on too', async () => {
      const answers = rows.map((ofRequest, request) => foreign.vllmNumpyAnswer(trace, ofRequest, request));
      const { got } = await imported(file('v.jsonl', lines(answers)), 'vllm');
      assertSame(got, (row) => notLast(row) && trace.position[row]! >= trace.request[row]!);
    });

    it('refuses ragged lists, damaged arrays and answers without routing', async () => {
      const answer = foreign.vllmListAnswer(trace, rows[0]!) as {
        prompt_routed_experts?: number[][][];
        choices: Record<string, unknown>[];
      };
      answer.prompt_routed_experts![2]![1]!.pop();
      await refused(
        file('v.jsonl', lines([answer])),
        'TRACE_SHAPE',
        /prompt_routed_experts\[2\]\[1\]: 2 experts, expected 3/,
      );
      answer.prompt_routed_experts![2] = [];
      await refused(file('v.jsonl', lines([answer])), 'TRACE_SHAPE', /prompt_routed_experts\[2\]: 0 layers/);
      delete answer.prompt_routed_experts;
      answer.choices[0]!.routed_experts = Buffer.from('no numpy').toString('base64');
      await refused(file('v.jsonl', lines([answer])), 'TRACE_BAD_RECORD', /no NumPy header/);
      answer.choices[0]!.routed_experts = foreign.numpy([3, 2, 3], '<i2', Buffer.alloc(34)).toString('base64');
      await refused(file('v.jsonl', lines([answer])), 'TRACE_BAD_RECORD', /17 values for shape/);
      answer.choices[0]!.routed_experts = null;
      await assert.rejects(importTrace(file('v.jsonl', lines([answer])), out, { model }), {
        code: 'TRACE_NO_ROUTING',
        hint: /--enable-return-routed-experts/,
      });
    });
  });

  it('end at the next row when interrupted, and leave nothing behind', async () => {
    const inputs: [string, string[]][] = [
      ['jsonl', foreign.genericLines(trace)],
      ['vllm', rows.map((ofRequest) => JSON.stringify(foreign.vllmNumpyAnswer(trace, ofRequest)))],
    ];
    for (const [format, recorded] of inputs) {
      const path = file('interrupted.jsonl', lines(recorded));
      rmSync(out, { force: true });
      const before = readdirSync(directory);
      await assert.rejects(importTrace(path, out, { model, format, importer: { signal: AbortSignal.abort() } }), {
        code: 'INTERRUPTED',
        exitStatus: 130,
      });
      assert.deepEqual(readdirSync(directory), before);
      await imported(path, format);
    }
  });

  it('refuse empty, unknown and missing inputs', async () => {
    await refused(file('empty', ''), 'TRACE_EMPTY', /empty/);
    await refused(file('blank', '\n\n'), 'TRACE_FORMAT', /no known format/);
    await refused(file('odd', 'PAR1xxxx'), 'TRACE_FORMAT', /Parquet/);
    await refused(join(directory, 'absent'), 'TRACE_UNREADABLE', /absent/);
    await refused(file('x.jsonl', '{}'), 'TRACE_FORMAT', /no format named csv/, { format: 'csv' });
    mkdirSync(join(directory, 'empty-folder'));
    await refused(join(directory, 'empty-folder'), 'TRACE_FORMAT', /no known format/);
  });

  it('raise only TRACE_ errors however an input is damaged', async () => {
    const inputs: [string, Buffer][] = [
      ['jsonl', Buffer.from(lines(foreign.genericLines(trace)))],
      ['vllm-logger', Buffer.from(lines(foreign.loggerLines(trace)))],
      ['chaos', Buffer.from(JSON.stringify(foreign.chaosSteps(trace, rows[0]!)))],
      ['llama-cpp', foreign.llamaBytes(foreign.llamaEvaluations(trace))],
      ['sglang', Buffer.from(lines(rows.map((ofRequest) => foreign.sglangAnswer(trace, ofRequest, 'uint16'))))],
      ['vllm', Buffer.from(lines(rows.map((ofRequest) => foreign.vllmListAnswer(trace, ofRequest))))],
      ['vllm', Buffer.from(lines(rows.map((ofRequest) => foreign.vllmNumpyAnswer(trace, ofRequest))))],
    ];
    const damage = fc.record({
      input: fc.constantFrom(...inputs),
      cut: fc.option(fc.nat(10_000)),
      flips: fc.array(fc.tuple(fc.nat(100_000), fc.oneof(fc.nat(255), fc.constantFrom(...Buffer.from('0,[]{}":-')))), {
        maxLength: 6,
      }),
    });
    await fc.assert(
      fc.asyncProperty(damage, async ({ input: [format, whole], cut, flips }) => {
        const bytes = Buffer.from(cut === null ? whole : whole.subarray(0, cut % whole.length));
        for (const [at, value] of flips) if (bytes.length > 0) bytes[at % bytes.length] = value;
        const path = file('fuzz', bytes);
        try {
          await importTrace(path, out, { model, format });
          await readTrace(out);
        } catch (error) {
          assert.ok(error instanceof SmoeError, `${format}: ${(error as Error).stack}`);
          assert.match(error.code, /^TRACE_/);
        }
      }),
      { numRuns: 600 },
    );
  });

  it('raise only TRACE_ errors however a FLAME-MoE file is damaged', async () => {
    const folder = join(directory, 'flame-fuzz');
    foreign.writeFlame(folder, trace);
    const path = join(folder, 'actives', 'iter_5473', 'layer_02.parquet');
    const whole = readFileSync(path);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 5 }),
        fc.option(fc.nat(whole.length)),
        async (flips, cut) => {
          const bytes = Buffer.from(whole.subarray(0, cut ?? undefined));
          for (const [at, value] of flips) if (at < bytes.length) bytes[at] = value;
          writeFileSync(path, bytes);
          try {
            await importTrace(folder, out, { model });
          } catch (error) {
            assert.ok(error instanceof SmoeError, String((error as Error).stack));
            assert.match(error.code, /^TRACE_/);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
