import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { SmoeError } from '../../errors.ts';
import { badRecord, badShape, unreadable } from '../bad-record.ts';
import type { TraceSink } from '../trace-sink.ts';
import { asArray, asObject, copyNumbers, kindOf, parseJson } from './fields.ts';
import type { TraceImporter } from './importer.ts';

const largestFile = 512 * 1024 * 1024;

/**
 * MoE_expert_selection_trace ("Patterns behind Chaos"): one JSON file per request, a list of steps, step 0 the prompt; a step maps
 * the layer number to the experts of each of its tokens, `[[ids], ...]`, or to null for a dense layer. No token ids. A folder is
 * read with its subfolders, which become the labels.
 */
export const chaos: TraceImporter = {
  name: 'chaos',
  describes: '"Patterns behind Chaos" JSON, one file per request, or a folder of them; no token ids',
  recognises: ({ entries, text }) =>
    entries === undefined ? /^\s*\[\s*\{\s*"\d+"\s*:/.test(text) : entries.some((name) => name.endsWith('.json')),
  async read(path, sink) {
    for (const file of requestFiles(path)) {
      if (sink.full) return;
      const folder = relative(path, dirname(file));
      sink.beginRequest(file === path ? '' : folder === '' ? basename(path) : folder);
      readRequest(file, sink);
    }
  },
};

function requestFiles(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const files = readdirSync(path, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.json'));
    if (files.length === 0)
      throw new SmoeError('TRACE_EMPTY', `${path}: holds no .json file`, { hint: 'one JSON file per request' });
    return files.sort().map((name) => join(path, name));
  } catch (error) {
    throw error instanceof SmoeError ? error : unreadable(path, error);
  }
}

function readText(path: string): string {
  try {
    const { size } = statSync(path);
    if (size <= largestFile) return readFileSync(path, 'utf8');
    throw badRecord(path, `${size} bytes are too many for one request`, `at most ${largestFile}`);
  } catch (error) {
    throw error instanceof SmoeError ? error : unreadable(path, error);
  }
}

function readRequest(path: string, sink: TraceSink): void {
  const whole = (): string => path;
  const steps = asArray(whole, 'file', parseJson(whole, readText(path)));
  let position = 0;
  for (const [step, value] of steps.entries()) {
    const where = (): string => `${path}, step ${step}`;
    const layers = moeLayers(where, asObject(where, value));
    const tokens = layers[0]!.tokens.length;
    for (const { name, tokens: rows } of layers) {
      if (rows.length !== tokens) {
        throw badRecord(
          where(),
          `layer ${name}: ${rows.length} tokens, ${tokens} in layer ${layers[0]!.name}`,
          'every layer needs every token',
        );
      }
    }
    const experts: number[] = [];
    for (let token = 0; token < tokens; token++, position++) {
      const whereToken = (): string => `${path}, step ${step}, token ${token}`;
      let topK = 0;
      let at = 0;
      for (const { name, tokens: rows } of layers) {
        const count = copyNumbers(whereToken, `layer ${name}`, rows[token], experts, at);
        if (at > 0 && count !== topK) {
          throw badShape(
            whereToken(),
            `layer ${name}: ${count} experts, ${topK} in the layers before`,
            'every layer needs the same k',
          );
        }
        topK = count;
        at += count;
      }
      experts.length = at;
      sink.shape(whereToken, layers.length, topK, false);
      sink.add(whereToken, position, -1, step === 0 ? 0 : 1, experts);
      if (sink.full) return;
    }
  }
}

/** The layers that are not null, by number. */
function moeLayers(where: () => string, step: Record<string, unknown>): { name: string; tokens: unknown[] }[] {
  const names = Object.keys(step);
  const odd = names.find((name) => !/^\d+$/.test(name));
  if (odd !== undefined) throw badRecord(where(), `key ${kindOf(odd)} is not a layer number`);
  const layers = names
    .filter((name) => step[name] !== null)
    .sort((a, b) => Number(a) - Number(b))
    .map((name) => ({ name, tokens: asArray(where, `layer ${name}`, step[name]) }));
  if (layers.length === 0) throw badRecord(where(), 'no layer with experts', 'every step needs its MoE layers');
  return layers;
}
