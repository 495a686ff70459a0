import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { runCommandLine } from '../../src/cli/command-line.ts';
import { commandLineOf } from '../../src/cli/verbs.ts';
import { readTrace } from '../../src/trace/parquet.ts';
import type { TraceStatistics } from '../../src/trace/statistics.ts';
import * as foreign from '../trace/foreign-formats.ts';
import { syntheticTrace } from '../trace/synthetic-trace.ts';

const trace = syntheticTrace({
  layers: 2,
  experts: 16,
  topK: 3,
  vocabularySize: 90,
  requests: 4,
  tokensPerRequest: 10,
  seed: 6,
});
const directory = mkdtempSync(join(tmpdir(), 'smoe-trace-cli-'));
after(() => rmSync(directory, { recursive: true }));
const at = (name: string): string => join(directory, name);

async function smoe(...argv: string[]): Promise<{ status: number; out: string; error: string }> {
  const outcome = { status: -1, out: '', error: '' };
  const terminal = {
    stdout: { write: (text: string) => (outcome.out += text) },
    stderr: { write: (text: string) => (outcome.error += text) },
    environment: {},
  };
  outcome.status = await runCommandLine(commandLineOf('0'), argv, terminal, new AbortController().signal);
  return outcome;
}

describe('smoe trace', () => {
  it('imports, says what it assumed, and shows the trace with a figure', async () => {
    writeFileSync(at('routes.jsonl'), foreign.genericLines(trace).join('\n'));
    const imported = await smoe('trace', 'import', at('routes.jsonl'), '--out', at('t.parquet'), '--experts', '16');
    assert.equal(imported.status, 0, imported.error);
    assert.match(imported.out, /40 tokens of 4 requests, read as jsonl/);
    assert.match(imported.error, /vocabulary size taken as .*--name gives one/s);
    const shown = await smoe('trace', 'show', at('t.parquet'), '--json', '--figure', at('t.svg'));
    assert.equal(shown.status, 0, shown.error);
    const statistics = JSON.parse(shown.out) as TraceStatistics;
    assert.equal(statistics.tokens, 40);
    assert.equal(statistics.layers[1]!.load.length, 16);
    assert.match(readFileSync(at('t.svg'), 'utf8'), /^<svg /);
  });

  it('works without token ids, and says what then cannot be said', async () => {
    writeFileSync(at('logger.jsonl'), foreign.loggerLines(trace).join('\n'));
    assert.equal((await smoe('trace', 'import', at('logger.jsonl'), '--out', at('u.parquet'))).status, 0);
    const shown = await smoe('trace', 'show', at('u.parquet'));
    assert.match(shown.out, /token ids unknown: coverage and predictability by token id cannot be said/);
    const planned = await smoe(
      'plan',
      at('u.parquet'),
      '--devices',
      '2',
      '--profile-share',
      '0.5',
      '--solver',
      'contiguous',
    );
    assert.equal(planned.status, 0, planned.error);
    assert.match(planned.out, /no token ids/);
  });

  it('refuses bad input with the place and leaves nothing behind', async () => {
    writeFileSync(at('bad.jsonl'), `${foreign.genericLines(trace)[0]}\n{"request": 1}\n`);
    const bad = await smoe('trace', 'import', at('bad.jsonl'), '--out', at('bad.parquet'));
    assert.equal(bad.status, 1);
    assert.match(bad.error, /error TRACE_BAD_RECORD: .*bad.jsonl, line 2: experts: expected a list/);
    assert.ok(!existsSync(at('bad.parquet')));
    assert.equal((await smoe('trace', 'import', at('bad.jsonl'), '--out', at('x'), '--format', 'jsnol')).status, 2);
    assert.equal((await smoe('trace', 'show', at('t.parquet'), '--figure', 'x.png')).status, 2);
  });

  it('records from a server', async () => {
    const rows = foreign.requestRows(trace);
    const server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const models = { data: [{ id: 'served', owned_by: 'sglang' }] };
        const ask = (): object =>
          foreign.sglangAnswer(trace, rows[Number((JSON.parse(text) as { text: string }).text)]!, 'uint16');
        response.end(JSON.stringify(request.url === '/v1/models' ? models : ask()));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    writeFileSync(at('prompts.jsonl'), '{"text":"0","domain":"a"}\n{"text":"1","domain":"b"}\n');
    writeFileSync(at('config.json'), '{"num_experts": 16, "num_experts_per_tok": 3, "vocab_size": 90}');
    const args = ['trace', 'record', '--from', url, '--text', at('prompts.jsonl'), '--out', at('live.parquet')];
    try {
      const unknown = await smoe(...args);
      assert.match(unknown.error, /TRACE_SHAPE.*\nhint: give --experts-per-token, or --model/);
      const recorded = await smoe(...args, '--model', directory, '--json');
      assert.equal(recorded.status, 0, recorded.error);
      assert.equal((JSON.parse(recorded.out) as { engine: string }).engine, 'sglang');
      const got = await readTrace(at('live.parquet'));
      assert.deepEqual(got.model, { fingerprint: 'served', layers: 2, experts: 16, topK: 3, vocabularySize: 90 });
      assert.deepEqual(got.labels, ['a', 'b']);
    } finally {
      server.closeAllConnections();
      server.close();
    }
    assert.equal((await smoe('trace', 'record', '--from', 'nowhere', '--out', at('x'))).status, 2);
  });
});
