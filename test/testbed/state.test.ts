import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { listStateNames, StateDirectory, stateRoot, type TestbedState } from '../../src/testbed/state.ts';
import { homogeneous } from '../../src/testbed/topology.ts';

const state: TestbedState = {
  version: 1,
  createdAt: '2026-01-01T00:00:00.000Z',
  phase: 'up',
  starter: 1,
  topology: homogeneous({ name: 'x', hosts: 2 }),
  latencyMechanism: 'none',
  measured: [],
};

describe('state', () => {
  const parent = mkdtempSync(join(tmpdir(), 'smoe-state-'));
  const root = stateRoot({ XDG_RUNTIME_DIR: parent });
  after(() => rmSync(parent, { recursive: true, force: true }));

  it('lives in the runtime directory of the user, or of the machine', () => {
    assert.equal(root, join(parent, 'smoe', 'testbed'));
    assert.equal(stateRoot({}), '/run/smoe/testbed');
    assert.equal(stateRoot({ XDG_RUNTIME_DIR: '' }), '/run/smoe/testbed');
  });

  it('is claimed once, read by others and removed without a trace', () => {
    const directory = new StateDirectory('x', root);
    assert.equal(directory.exists, false);
    directory.claim();
    assert.throws(() => new StateDirectory('x', root).claim(), { code: 'TESTBED_EXISTS' });
    assert.equal(directory.read(), undefined);
    directory.write(state);
    assert.equal(statSync(directory.stateFile).mode & 0o777, 0o600);
    assert.equal(statSync(directory.path).mode & 0o777, 0o700);
    assert.deepEqual(new StateDirectory('x', root).read(), state);
    assert.deepEqual(listStateNames(root), ['x']);

    const other = new StateDirectory('y', root);
    other.claim();
    directory.remove();
    assert.deepEqual(listStateNames(root), ['y']);
    other.remove();
    other.remove();
    assert.equal(existsSync(join(parent, 'smoe')), false);
    assert.deepEqual(listStateNames(root), []);
  });

  it('passes over what it cannot read', () => {
    const directory = new StateDirectory('x', root);
    directory.claim();
    writeFileSync(directory.stateFile, '{ half');
    assert.equal(directory.read(), undefined);
    writeFileSync(directory.stateFile, JSON.stringify({ ...state, version: 99 }));
    assert.equal(directory.read(), undefined);
    directory.remove();
  });
});
