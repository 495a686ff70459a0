import { describe, it } from 'node:test';
import { renderOverview, renderUsage } from '../../src/cli/usage.ts';
import { commandLineOf } from '../../src/cli/verbs.ts';
import { matchesSnapshot } from './snapshot.ts';

describe('usage', () => {
  const { summary, verbs, examples } = commandLineOf('0.0.0');

  it('lists the commands', () => matchesSnapshot('smoe', renderOverview(summary, verbs, examples)));

  for (const verb of verbs) {
    it(`describes ${verb.name}`, () => matchesSnapshot(`smoe-${verb.name.replace(' ', '-')}`, renderUsage(verb)));
  }
});
