import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { SmoeError } from '../../src/errors.ts';
import { readConfigFacts } from '../../src/trace/live/config-facts.ts';
import { type LiveRecordingOptions, recordFromServer } from '../../src/trace/live/record.ts';
import { readTrace } from '../../src/trace/parquet.ts';
import { unknownModel } from '../../src/trace/trace-sink.ts';
import * as foreign from './foreign-formats.ts';
import { syntheticTrace } from './synthetic-trace.ts';

const trace = syntheticTrace({
  layers: 2,
  experts: 16,
  topK: 3,
  vocabularySize: 90,
  requests: 5,
  tokensPerRequest: 10,
  seed: 6,
});
const rows = foreign.requestRows(trace);
const prompts = rows.map((_, request) => ({ text: `prompt ${request}`, label: `label ${request % 2}` }));
const kept = Array.from({ length: trace.length }, (_, row) => row).filter((row) => trace.position[row] !== 9);

type Handler = (
  request: { path: string; body: Record<string, unknown> | undefined; headers: IncomingMessage['headers'] },
  response: ServerResponse,
) => void;

describe('recording from a server', () => {
  let directory: string;
  let out: string;
  let url: string;
  let handle: Handler = () => {};
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      handle(
        {
          path: request.url!,
          body: text === '' ? undefined : (JSON.parse(text) as Record<string, unknown>),
          headers: request.headers,
        },
        response,
      );
    });
  });
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'smoe-live-'));
    out = join(directory, 'live.parquet');
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(() => {
    server.closeAllConnections();
    server.close();
    rmSync(directory, { recursive: true });
  });

  const send = (response: ServerResponse, json: unknown, status: number = 200): void => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(json));
  };
  const models = (ownedBy: string): object => ({
    object: 'list',
    data: [{ id: 'org/model', object: 'model', owned_by: ownedBy }],
  });
  const requestOf = (text: unknown): number => Number(/^prompt (\d)$/.exec(String(text))![1]);
  const sglang: Handler = ({ path, body }, response) => {
    if (path === '/v1/models') return send(response, models('sglang'));
    assert.equal(path, '/generate');
    assert.equal(body!.return_routed_experts, true);
    return send(response, foreign.sglangAnswer(trace, rows[requestOf(body!.text)]!, 'uint8'));
  };
  const record = (change: Partial<LiveRecordingOptions> = {}): ReturnType<typeof recordFromServer> =>
    recordFromServer({
      url,
      engine: 'auto',
      prompts,
      out,
      source: 'test prompts',
      maxNewTokens: 5,
      concurrency: 3,
      model: { ...unknownModel, topK: 3, experts: 16 },
      signal: new AbortController().signal,
      ...change,
      limits: { timeoutMs: 2000, retries: 2, backoffMs: 5, ...change.limits },
    });
  const fails = (change: Partial<LiveRecordingOptions>, code: string, message: RegExp, hint: RegExp): Promise<void> =>
    assert.rejects(record(change), (error) => {
      assert.ok(error instanceof SmoeError, String((error as Error).stack));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, message);
      assert.match(error.hint ?? '', hint);
      assert.ok(!readdirSync(directory).some((name) => name.endsWith('.tmp')));
      return true;
    });

  it('collects what SGLang returns, in the order of the prompts', async () => {
    // Later prompts are answered first.
    handle = (request, response) =>
      setTimeout(() => sglang(request, response), 20 - 4 * Number(/\d/.exec(String(request.body?.text))?.[0] ?? 0));
    const progress: number[] = [];
    const report = await record({ onProgress: (done) => progress.push(done) });
    assert.deepEqual(progress, [1, 2, 3, 4, 5]);
    assert.equal(report.engine, 'sglang');
    const got = await readTrace(out);
    assert.equal(got.model.fingerprint, 'org/model');
    assert.deepEqual(got.experts, Uint16Array.from(kept.flatMap((row) => foreign.layersOf(trace, row).flat())));
    assert.deepEqual(
      [...got.token],
      kept.map((row) => trace.token[row]),
    );
    assert.deepEqual(
      got.labels,
      prompts.map(({ label }) => label),
    );
  });

  for (const [version, answerOf] of [
    ['0.21', foreign.vllmListAnswer],
    ['0.22', foreign.vllmNumpyAnswer],
  ] as const) {
    it(`collects what vLLM ${version} returns`, async () => {
      handle = ({ path, body, headers }, response) => {
        assert.equal(headers.authorization, 'Bearer secret');
        if (path === '/v1/models') return send(response, models('vllm'));
        assert.equal(path, '/v1/completions');
        assert.equal(body!.model, 'org/model');
        return send(response, answerOf(trace, rows[requestOf(body!.prompt)]!));
      };
      const report = await record({ url: `${url}/v1/`, apiKey: 'secret', model: unknownModel });
      assert.equal(report.engine, 'vllm');
      const got = await readTrace(out);
      assert.deepEqual(got.experts, Uint16Array.from(kept.flatMap((row) => foreign.layersOf(trace, row).flat())));
      assert.deepEqual(
        [...got.token],
        kept.map((row) => trace.token[row]),
      );
    });
  }

  it('never has more prompts under way than allowed, and asks again when the server is busy', async () => {
    let underWay = 0;
    let most = 0;
    let refused = 0;
    handle = (request, response) => {
      if (request.path === '/v1/models') return sglang(request, response);
      if (refused++ % 2 === 0) return send(response, { error: 'busy' }, 503);
      most = Math.max(most, ++underWay);
      return setTimeout(() => {
        underWay--;
        sglang(request, response);
      }, 10);
    };
    await record({ concurrency: 2, limits: { retries: 6 } });
    assert.ok(most <= 2 && refused > 5);
  });

  it('names the launch flag when answers hold no routing', async () => {
    handle = ({ path }, response) =>
      send(
        response,
        path === '/v1/models' ? models('sglang') : { text: 'x', meta_info: { prompt_tokens: 3, completion_tokens: 1 } },
      );
    await fails(
      {},
      'TRACE_NO_ROUTING',
      /\/generate, prompt 1: the answer holds no routed_experts/,
      /SGLang server with --enable-return-routed-experts/,
    );
    handle = ({ path }, response) =>
      send(response, path === '/v1/models' ? models('vllm') : { choices: [{ text: 'x', routed_experts: null }] });
    await fails(
      {},
      'TRACE_NO_ROUTING',
      /\/v1\/completions, prompt 1/,
      /vLLM server with --enable-return-routed-experts/,
    );
  });

  it('says what is wrong with a server that refuses, is foreign, slow or absent', async () => {
    handle = (request, response) =>
      request.path === '/v1/models' ? sglang(request, response) : send(response, { error: 'too long' }, 400);
    await fails({}, 'TRACE_SERVER', /prompt 1: status 400: .*too long/, /log/);
    handle = (_, response) => send(response, {}, 401);
    await fails({}, 'TRACE_SERVER', /status 401/, /--api-key/);
    handle = (_, response) => send(response, models('someone'));
    await fails({}, 'TRACE_SERVER', /owned by "someone"/, /--engine sglang or vllm/);
    handle = () => {};
    await fails({ limits: { timeoutMs: 30, retries: 1 } }, 'TRACE_SERVER', /no answer within 30 ms/, /running/);
    await fails({ url: 'http://127.0.0.1:9', limits: { retries: 0 } }, 'TRACE_SERVER', /127.0.0.1:9/, /running/);
    await fails({ url: 'ftp://x' }, 'TRACE_SERVER', /not an http address/, /http/);
  });

  it('takes no answer beyond the bound, announced or not', async () => {
    for (const announced of [true, false]) {
      handle = (request, response) => {
        if (request.path === '/v1/models') return sglang(request, response);
        response.writeHead(200, announced ? { 'content-length': '100000' } : {});
        return response.end('x'.repeat(100_000));
      };
      await fails({ limits: { mostBytes: 10_000 } }, 'TRACE_SERVER', /larger than 10000 bytes/, /shorter/);
    }
  });

  it('refuses damaged routing and stops when told to', async () => {
    handle = (request, response) => {
      if (request.path === '/v1/models') return sglang(request, response);
      const answer = foreign.sglangAnswer(trace, rows[0]!, 'uint8') as { meta_info: Record<string, unknown> };
      answer.meta_info.routed_experts = Buffer.alloc(81, 200).fill(0, 0, 3).fill(201, 4, 5).toString('base64');
      return send(response, answer);
    };
    await fails({}, 'TRACE_BAD_RECORD', /prompt 1, position 0: MoE layer 0: expert 200 of 16/, /--experts/);
    const stop = new AbortController();
    handle = (request, response) => (request.path === '/v1/models' ? sglang(request, response) : stop.abort());
    await fails({ signal: stop.signal }, 'INTERRUPTED', /interrupted/, /^$/);
    await fails({ signal: AbortSignal.abort() }, 'INTERRUPTED', /interrupted/, /^$/);
  });
});

describe('model facts of a config.json', () => {
  it('are found under the names that families use', () => {
    const directory = mkdtempSync(join(tmpdir(), 'smoe-config-'));
    const facts = (config: object): object => {
      writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
      return readConfigFacts(directory);
    };
    assert.deepEqual(facts({ num_experts: 128, num_experts_per_tok: 8, vocab_size: 9 }), {
      experts: 128,
      topK: 8,
      vocabularySize: 9,
    });
    assert.deepEqual(facts({ text_config: { n_routed_experts: 256, num_experts_per_tok: 8 } }), {
      experts: 256,
      topK: 8,
      vocabularySize: undefined,
    });
    assert.throws(() => readConfigFacts(join(directory, 'absent')), { code: 'TRACE_CONFIG' });
    rmSync(directory, { recursive: true });
  });
});
