import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { Flags } from '../../src/cli/flags.ts';
import { demoDirectory, demoProfile, type ModelFacts } from '../../src/cli/model-directory.ts';
import { cacheDirectory, choosePlanSource, type PlanQuestion } from '../../src/cli/plan-resolution.ts';

const cache = mkdtempSync(join(tmpdir(), 'smoe-test-'));
after(() => rmSync(cache, { recursive: true }));

// No plan is shipped for 97 devices.
const devices = 97;
const question: PlanQuestion = {
  model: { fingerprint: 'abc' } as ModelFacts,
  devices,
  explicit: undefined,
  profile: undefined,
  cacheDirectory: cache,
};

describe('plan source', () => {
  it('is the plan named, whatever else there is', () => {
    assert.deepEqual(
      choosePlanSource({ ...question, explicit: 'mine.json' }, () => true),
      { kind: 'given', path: 'mine.json' },
    );
  });

  it('is solved into the cache, keyed by model, text and devices, and then cached', () => {
    const source = choosePlanSource(question, () => false);
    assert.ok(source.kind === 'solve');
    assert.equal(source.profile, demoProfile);
    assert.match(source.path, /plan-abc-[0-9a-f]{8}-97\.json$/);
    writeFileSync(source.path, '{}');
    assert.equal(choosePlanSource(question, () => true).kind, 'cached');
    assert.equal(
      choosePlanSource(question, () => false).kind,
      'solve',
      'a cached plan that does not fit is solved again',
    );
    const other = join(cache, 'text.txt');
    writeFileSync(other, 'other text');
    assert.notEqual(choosePlanSource({ ...question, profile: other }, () => true).path, source.path);
  });

  it('is the shipped plan when it fits and no other profile is named', () => {
    const shipped = choosePlanSource({ ...question, devices: 4 }, () => true);
    if (shipped.kind === 'shipped') assert.equal(shipped.path, join(demoDirectory, 'plan-4.json'));
    const other = join(cache, 'text.txt');
    writeFileSync(other, 'other text');
    assert.equal(choosePlanSource({ ...question, devices: 4, profile: other }, () => true).kind, 'solve');
  });

  it('refuses a profile that is not there', () => {
    assert.throws(() => choosePlanSource({ ...question, profile: join(cache, 'none.txt') }, () => true), {
      code: 'PROFILE_NOT_FOUND',
    });
  });

  it('caches where it is told', () => {
    assert.equal(cacheDirectory(new Flags({ cache: '/c' }), {}), '/c');
    assert.equal(cacheDirectory(new Flags({}), { XDG_CACHE_HOME: '/x' }), join('/x', 'speculative-moe'));
    assert.match(cacheDirectory(new Flags({}), {}), /\.cache.speculative-moe$/);
  });
});
