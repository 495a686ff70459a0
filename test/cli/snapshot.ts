import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Compares with test/cli/snapshots/NAME.txt; UPDATE_SNAPSHOTS=1 writes it instead. */
export function matchesSnapshot(name: string, text: string): void {
  const path = fileURLToPath(new URL(`../../../test/cli/snapshots/${name}.txt`, import.meta.url));
  if (process.env.UPDATE_SNAPSHOTS === '1') {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    return;
  }
  assert.ok(existsSync(path), `${path} is missing: run the tests once with UPDATE_SNAPSHOTS=1 and read the result`);
  assert.equal(text, readFileSync(path, 'utf8'), `differs from ${path}; if that is meant: UPDATE_SNAPSHOTS=1`);
}
