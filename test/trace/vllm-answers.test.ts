import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runCommandLine } from '../../src/cli/command-line.ts';
import { commandLineOf } from '../../src/cli/verbs.ts';
import { readTrace } from '../../src/trace/parquet.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';

const demo = fileURLToPath(new URL('../../../models/demo', import.meta.url));
const answers = readFileSync(
  fileURLToPath(new URL('../../../test/fixtures/vllm/answers-0.30.0.jsonl', import.meta.url)),
  'utf8',
).split('\n');
const prompt = 'int main(void) {\n  printf("%d';
const promptLength = 9;

/** The answers that a real vLLM server gave, against what the engine here routes for the same text. */
describe('answers of vLLM 0.30.0', () => {
  let directory: string;
  let own: RoutingTrace;
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'smoe-vllm-'));
    writeFileSync(at('prompt.jsonl'), `${JSON.stringify({ text: prompt })}\n`);
    const recorded = [
      '--text',
      at('prompt.jsonl'),
      '--max-new-tokens',
      '4',
      '--ranks',
      '1',
      '--out',
      at('own.parquet'),
    ];
    assert.equal((await smoe('trace', 'record', demo, ...recorded)).status, 0);
    own = await readTrace(at('own.parquet'));
  });
  after(() => rmSync(directory, { recursive: true }));

  const at = (name: string): string => join(directory, name);
  async function smoe(...args: string[]): Promise<{ status: number; stderr: string }> {
    let stderr = '';
    const terminal = {
      stdout: { write: () => {} },
      stderr: { write: (text: string) => (stderr += text) },
      environment: { SMOE_CACHE: directory },
    };
    const status = await runCommandLine(commandLineOf('0.0.0'), args, terminal, new AbortController().signal);
    return { status, stderr };
  }
  async function imported(...lines: number[]): Promise<RoutingTrace> {
    writeFileSync(at('answers.jsonl'), lines.map((line) => `${answers[line]}\n`).join(''));
    const outcome = await smoe('trace', 'import', at('answers.jsonl'), '--model', demo, '--out', at('vllm.parquet'));
    assert.equal(outcome.status, 0, outcome.stderr);
    return readTrace(at('vllm.parquet'));
  }
  const experts = (trace: RoutingTrace, from: number, to: number): number[] => {
    const width = trace.model.layers * trace.model.topK;
    return [...trace.experts.subarray(from * width, to * width)];
  };

  it('route prompt and generated tokens as the engine here does', async () => {
    const got = await imported(0);
    assert.deepEqual(got.model, own.model);
    assert.equal(got.length, promptLength + 4 - 1);
    for (const column of ['experts', 'token', 'position', 'phase'] as const)
      assert.deepEqual(got[column], own[column], column);
  });

  it('stand at their positions when they begin later', async () => {
    const got = await imported(1);
    assert.deepEqual([...got.position], [5, 6, 7, 8, 9, 10, 11]);
    assert.deepEqual(experts(got, 0, got.length), experts(own, 5, own.length));
    assert.deepEqual([...got.token], [...own.token.subarray(5)]);
  });

  it('may hold several samples of a prompt, and several prompts where their token ids are there', async () => {
    const got = await imported(2, 4);
    assert.deepEqual(
      Array.from({ length: 4 }, (_, request) => [...got.phase].filter((_phase, row) => got.request[row] === request)),
      [
        [...Array<number>(9).fill(0), 1, 1],
        [...Array<number>(9).fill(0), 1, 1],
        [...Array<number>(9).fill(0), 1],
        [0, 0, 1],
      ],
    );
    for (const first of [0, 11, 22])
      assert.deepEqual(experts(got, first, first + promptLength), experts(own, 0, promptLength));
    assert.deepEqual([...got.token.subarray(0, 22)], Array<number>(22).fill(-1));
  });

  it('are refused where it cannot be known which tokens are of which prompt', async () => {
    writeFileSync(at('answers.jsonl'), `${answers[3]}\n`);
    const out = at('refused.parquet');
    const { status, stderr } = await smoe('trace', 'import', at('answers.jsonl'), '--model', demo, '--out', out);
    assert.equal(status, 1);
    assert.match(stderr, /^error TRACE_BAD_RECORD: .*which of the 11 prompt tokens are of which of its 2 choices/m);
    assert.match(stderr, /return_token_ids/);
    assert.deepEqual(
      readdirSync(directory).filter((name) => name.startsWith('refused')),
      [],
    );
  });
});
