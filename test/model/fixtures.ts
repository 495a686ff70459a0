/** The checkpoints of test/fixtures/tiny, their goldens, and damaged variants of them. */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { SmoeError } from '../../src/errors.ts';
import type { ModelFamily } from '../../src/model/config.ts';

/** From dist/test/model/ to the repository root. */
const root: string = fileURLToPath(new URL('../../../', import.meta.url));

export const tinyFamilies: readonly ModelFamily[] = ['qwen3_moe', 'mixtral', 'olmoe'];

export function tinyDirectory(family: ModelFamily): string {
  return join(root, 'test/fixtures/tiny', family);
}

/** Written by train/tiny_checkpoints.py. */
export interface GoldenPrompt {
  tokens: number[];
  /** Greedy continuation, end tokens ignored. */
  greedy: number[];
  /** Best logit minus second best, per greedy token. */
  greedyMargins: number[];
  /** Per layer: [positions][topK] ascending expert ids; k-th minus (k+1)-th router probability per position. */
  routing: { experts: number[][]; gaps: number[] }[];
}

export interface Golden {
  vocabularySize: number;
  smallestDistanceFromTie: number;
  prompts: GoldenPrompt[];
  /** [sum of prompt lengths, vocabularySize], prompts in order. */
  logits: Float32Array;
}

export function readGolden(family: ModelFamily): Golden {
  const directory = tinyDirectory(family);
  const golden = readJson<Omit<Golden, 'logits'>>(join(directory, 'golden.json'));
  const bytes = new Uint8Array(readFileSync(join(directory, 'golden-logits.f32')));
  return { ...golden, logits: new Float32Array(bytes.buffer) };
}

export function readJson<Value = Record<string, unknown>>(path: string): Value {
  return JSON.parse(readFileSync(path, 'utf8')) as Value;
}

/** An empty directory, removed after the test. */
export function temporaryDirectory(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'smoe-test-'));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A copy of a tiny checkpoint, to damage. */
export function copyTiny(context: TestContext, family: ModelFamily): string {
  const directory = temporaryDirectory(context);
  cpSync(tinyDirectory(family), directory, { recursive: true });
  return directory;
}

/** For assert.throws: a SmoeError with this code and a hint, whose message holds every given part. */
export function smoeError(code: string, ...parts: string[]): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof SmoeError, `not a SmoeError: ${String(error)}`);
    assert.equal(error.code, code, error.message);
    assert.ok(error.hint, 'no hint');
    for (const part of parts)
      assert.ok(error.message.includes(part), `${JSON.stringify(part)} not in: ${error.message}`);
    return true;
  };
}
