import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runCommandLine } from '../../src/cli/command-line.ts';
import { commandLineOf } from '../../src/cli/verbs.ts';
import { readTrace } from '../../src/trace/parquet.ts';
import * as foreign from './foreign-formats.ts';
import { syntheticTrace } from './synthetic-trace.ts';

const trace = syntheticTrace({
  ...{ layers: 2, experts: 8, topK: 3, vocabularySize: 90, requests: 3, tokensPerRequest: 10, seed: 6 },
});
const expertOfPosition = [
  [7, 2, 0, 1, 6, 5, 3, 4],
  [1, 0, 3, 2, 5, 4, 7, 6],
];
const numbers = { originalFingerprint: 'original', modelLayers: [1, 2], expertOfPosition };

/** Routing as a server of the renumbered checkpoint would return it. */
const renumbered = {
  ...trace,
  experts: trace.experts.map((expert, at) => expertOfPosition[Math.floor(at / 3) % 2]!.indexOf(expert)),
};

describe('expert numbers', () => {
  let directory: string;
  before(() => void (directory = mkdtempSync(join(tmpdir(), 'smoe-numbers-'))));
  after(() => rmSync(directory, { recursive: true }));

  async function importWith(content: unknown, ...more: string[]): Promise<{ status: number; stderr: string }> {
    const at = (name: string): string => join(directory, name);
    writeFileSync(at('in.jsonl'), foreign.genericLines(renumbered).join('\n'));
    if (content !== undefined) writeFileSync(at('numbers.json'), JSON.stringify(content));
    let stderr = '';
    const terminal = {
      stdout: { write: () => {} },
      stderr: { write: (text: string) => (stderr += text) },
      environment: {},
    };
    const args = ['trace', 'import', at('in.jsonl'), '--out', at('out.parquet'), ...more];
    args.push('--expert-numbers', at('numbers.json'));
    const status = await runCommandLine(commandLineOf('0.0.0'), args, terminal, new AbortController().signal);
    return { status, stderr };
  }

  it('bring routing of a renumbered checkpoint back to the numbers and the name of the original', async () => {
    const { status, stderr } = await importWith(numbers);
    assert.equal(status, 0, stderr);
    const got = await readTrace(join(directory, 'out.parquet'), { weights: true });
    assert.deepEqual(got.experts, trace.experts);
    assert.equal(got.model.fingerprint, 'original');
    assert.equal(got.model.experts, 8);
    rmSync(join(directory, 'out.parquet'));
  });

  it('are refused when they are not those of a model', async () => {
    const refusals: [unknown, RegExp][] = [
      [null, /holds no originalFingerprint/],
      [[], /holds no originalFingerprint/],
      [{ ...numbers, originalFingerprint: 5 }, /holds no originalFingerprint/],
      [{ ...numbers, expertOfPosition: [] }, /no list expertOfPosition/],
      [{ ...numbers, expertOfPosition: [[0, 1, 2], 'x'] }, /MoE layer 1: is not each of 3 experts once/],
      [{ ...numbers, expertOfPosition: [[0, 1, 1]] }, /MoE layer 0: is not each/],
      [{ ...numbers, expertOfPosition: [[0, 1, 3]] }, /MoE layer 0: is not each/],
      [{ ...numbers, expertOfPosition: [expertOfPosition[0]] }, /2 MoE layers, --expert-numbers knows 1/],
      [
        {
          ...numbers,
          expertOfPosition: [
            [2, 1, 0],
            [0, 1, 2],
          ],
        },
        /expert \d of 3/,
      ],
    ];
    for (const [content, message] of refusals) {
      const { status, stderr } = await importWith(content);
      assert.equal(status, 1, stderr);
      assert.match(stderr, message);
      assert.ok(!readdirSync(directory).some((name) => name.startsWith('out')));
    }
    rmSync(join(directory, 'numbers.json'));
    assert.match((await importWith(undefined)).stderr, /EXPERT_NUMBERS: .*numbers\.json: is not there/);
  });
});
