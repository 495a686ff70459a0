import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { SmoeError } from '../../src/errors.ts';
import { readTrace, TraceWriter, writeTrace } from '../../src/trace/parquet.ts';
import type { RoutingTrace } from '../../src/trace/routing-trace.ts';
import { syntheticTrace } from './synthetic-trace.ts';

describe('trace files', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'smoe-trace-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  const small = (): RoutingTrace =>
    syntheticTrace({ layers: 3, experts: 16, topK: 4, vocabularySize: 50, requests: 6, tokensPerRequest: 9, seed: 3 });

  it('come back exactly, weights only when asked for', async () => {
    const trace = small();
    trace.weights = new Float32Array(trace.experts.length).map((_, i) => Math.fround(i / 7));
    const path = join(directory, 'exact.parquet');
    writeTrace(path, trace);
    assert.deepEqual(await readTrace(path, { weights: true }), trace);
    assert.deepEqual(await readTrace(path), { ...trace, weights: undefined });
  });

  it('come back exactly over several row groups and appends', async () => {
    const trace = syntheticTrace({
      layers: 1,
      experts: 8,
      topK: 2,
      vocabularySize: 30,
      requests: 20,
      tokensPerRequest: 900,
      seed: 4,
    });
    const path = join(directory, 'groups.parquet');
    writeTrace(path, trace);
    assert.deepEqual(await readTrace(path), trace);
  });

  it('come back exactly however they are cut while written', async () => {
    const whole = small();
    whole.weights = new Float32Array(whole.experts.length).map((_, i) => Math.fround(1 / (i + 3)));
    const path = join(directory, 'streamed.parquet');
    const width = whole.model.layers * whole.model.topK;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(whole.length), { maxLength: 6 }), async (cuts) => {
        const writer = new TraceWriter(path, whole.model, true);
        const ends = [...cuts.sort((a, b) => a - b), whole.length];
        ends.reduce((start, end) => {
          writer.append({
            length: end - start,
            request: whole.request.subarray(start, end),
            position: whole.position.subarray(start, end),
            token: whole.token.subarray(start, end),
            phase: whole.phase.subarray(start, end),
            experts: whole.experts.subarray(start * width, end * width),
            weights: whole.weights!.subarray(start * width, end * width),
          });
          return end;
        }, 0);
        writer.finish(whole.source, whole.labels);
        assert.deepEqual(await readTrace(path, { weights: true }), whole);
      }),
      { numRuns: 25 },
    );
  });

  it('leave nothing behind when abandoned', () => {
    const path = join(directory, 'abandoned.parquet');
    const writer = new TraceWriter(path, small().model, false);
    writer.append(small());
    writer.abandon();
    assert.deepEqual(
      readdirSync(directory).filter((name) => name.startsWith('abandoned')),
      [],
    );
  });

  const invalidTraces: [string, (trace: RoutingTrace) => void, string, RegExp][] = [
    ['an expert out of range', (t) => (t.experts[5 * 12 + 11] = 16), 'TRACE_INVALID', /row 5, layer 2: expert 16/],
    ['a repeated expert', (t) => (t.experts[1] = t.experts[0]!), 'TRACE_INVALID', /row 0, layer 0/],
    ['a token outside the vocabulary', (t) => (t.token[7] = 50), 'TRACE_INVALID', /row 7: token 50/],
    ['a position that does not ascend', (t) => (t.position[2] = 1), 'TRACE_INVALID', /row 2: position 1/],
    ['requests out of order', (t) => (t.request[9] = 2), 'TRACE_INVALID', /row 9: request 2/],
    ['an unknown phase', (t) => (t.phase[3] = 2), 'TRACE_INVALID', /row 3: phase 2/],
    ['missing labels', (t) => t.labels.pop(), 'TRACE_INVALID', /labels: 5 labels for 6/],
    ['no rows', (t) => (t.length = 0), 'TRACE_EMPTY', /no rows/],
  ];
  for (const [what, damage, code, message] of invalidTraces) {
    it(`refuse ${what}`, () => {
      const trace = small();
      damage(trace);
      assert.throws(
        () => writeTrace(join(directory, 'bad.parquet'), trace),
        (error) => error instanceof SmoeError && error.code === code && message.test(error.message),
      );
    });
  }

  it('refuse damaged rows when read', async () => {
    const trace = small();
    const path = join(directory, 'damaged.parquet');
    const writer = new TraceWriter(path, trace.model, false);
    trace.experts[12] = 999;
    writer.append(trace);
    writer.finish('damaged', trace.labels);
    await assert.rejects(readTrace(path), { code: 'TRACE_INVALID', message: /row 1, layer 0: expert 999 of 16/ });
  });

  it('say what is wrong with a missing, empty, foreign or truncated file', async () => {
    const path = join(directory, 'whole.parquet');
    writeTrace(path, small());
    await assert.rejects(readTrace(join(directory, 'absent.parquet')), { code: 'TRACE_UNREADABLE' });
    const bytes = readFileSync(path);
    for (const length of [0, 3, 100, bytes.length >> 1, bytes.length - 1]) {
      const cut = join(directory, 'cut.parquet');
      writeFileSync(cut, bytes.subarray(0, length));
      await assert.rejects(readTrace(cut), { code: 'TRACE_CORRUPT' });
    }
  });

  it('raise only SmoeError however a file is damaged', async () => {
    const path = join(directory, 'fuzz.parquet');
    writeTrace(path, small());
    const bytes = readFileSync(path);
    const flip = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(fc.array(flip, { minLength: 1, maxLength: 8 }), async (flips) => {
        const damagedBytes = Buffer.from(bytes);
        for (const [at, value] of flips) damagedBytes[at] = value;
        const fuzzed = join(directory, 'fuzzed.parquet');
        writeFileSync(fuzzed, damagedBytes);
        try {
          await readTrace(fuzzed, { weights: true });
        } catch (error) {
          assert.ok(error instanceof SmoeError, String((error as Error).stack));
          assert.match(error.code, /^TRACE_/);
        }
      }),
      { numRuns: 300 },
    );
  });
});
