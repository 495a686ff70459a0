import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { planTestbed } from '../../src/testbed/commands.ts';
import { executeSteps, type Effects } from '../../src/testbed/execute.ts';
import { homogeneous } from '../../src/testbed/topology.ts';

const steps = planTestbed(homogeneous({ name: 'x', hosts: 2, rateMbit: 100, latencyUs: 50 }), 'relay');

/** Namespaces as the commands leave them; `before` each effect may throw. */
function pretend(before: (number: number) => void = () => {}): {
  effects: Effects;
  namespaces: Set<string>;
  done: () => number;
} {
  const namespaces = new Set<string>();
  let done = 0;
  const effects: Effects = {
    run(argv) {
      if (argv[2] === 'del') return namespaces.delete(argv[3]!);
      before(done++);
      if (argv[2] === 'add' && argv[1] === 'netns') namespaces.add(argv[3]!);
      return undefined;
    },
    async startRelay() {
      before(done++);
    },
    endProcesses: () => assert.ok(namespaces.size > 0 || done <= 1),
  };
  return { effects, namespaces, done: () => done };
}

describe('execution of a plan', () => {
  it('does every step in order', async () => {
    const { effects, namespaces, done } = pretend();
    await executeSteps(steps, effects);
    assert.equal(done(), steps.length);
    assert.equal(namespaces.size, 3);
  });

  it('takes back what was done, whichever step fails', async () => {
    for (let failing = 0; failing < steps.length; failing++) {
      const { effects, namespaces } = pretend((number) => {
        if (number === failing) throw new Error(`step ${failing}`);
      });
      await assert.rejects(executeSteps(steps, effects), { message: `step ${failing}` });
      assert.equal(namespaces.size, 0);
    }
  });

  it('takes back what was done, whenever it is interrupted', async () => {
    for (let last = 0; last < steps.length; last++) {
      const interruption = new AbortController();
      const { effects, namespaces, done } = pretend((number) => {
        if (number === last) interruption.abort();
      });
      await assert.rejects(executeSteps(steps, effects, interruption.signal), { code: 'INTERRUPTED', exitStatus: 130 });
      assert.equal(done(), last + 1);
      assert.equal(namespaces.size, 0);
    }
  });

  it('goes on taking back when a part of that fails', async () => {
    const { effects, namespaces } = pretend((number) => {
      if (number === 5) throw new Error('first');
    });
    const run = effects.run;
    effects.run = (argv) => {
      if (argv[2] === 'del' && argv[3] === 'smoe-x-1') throw new Error('second');
      return run(argv);
    };
    effects.endProcesses = () => {
      throw new Error('third');
    };
    await assert.rejects(executeSteps(steps, effects), { message: 'first' });
    assert.deepEqual([...namespaces], ['smoe-x-1']);
  });
});
