import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ArgsDef } from 'citty';
import { environmentName, readArguments } from '../../src/cli/arguments.ts';
import { didYouMean, editDistance } from '../../src/cli/did-you-mean.ts';

const args: ArgsDef = {
  file: { type: 'positional', required: true, description: 'A file' },
  'max-new-tokens': { type: 'string', default: '16', description: 'How many' },
  temperature: { type: 'string', description: 'How hot' },
  compare: { type: 'boolean', description: 'All of them' },
};

function refused(rawArgs: string[], code: string, message: RegExp, environment: Record<string, string> = {}): void {
  assert.throws(() => readArguments(rawArgs, args, environment), { code, message, exitStatus: 2 });
}

describe('arguments', () => {
  it('reads positionals, values, defaults and switches', () => {
    const flags = readArguments(['a.txt', '--temperature=0.5', '--compare'], args, {});
    assert.equal(flags.string('file'), 'a.txt');
    assert.equal(flags.number('temperature'), 0.5);
    assert.equal(flags.integer('max-new-tokens'), 16);
    assert.equal(flags.boolean('compare'), true);
    assert.equal(flags.boolean('quiet'), false);
    assert.equal(readArguments(['a', '--compare', '--no-compare'], args, {}).boolean('compare'), false);
    assert.equal(readArguments(['a', '--temperature', '-1'], args, {}).number('temperature'), -1);
    assert.equal(readArguments(['-q', 'a'], args, {}).boolean('quiet'), true);
    assert.equal(readArguments(['--', '--compare'], args, {}).string('file'), '--compare');
  });

  it('refuses what it does not know, naming it', () => {
    refused(['a', '--max-new-token', '3'], 'USAGE_UNKNOWN_FLAG', /unknown flag --max-new-token$/);
    refused(['a', '--maxNewTokens', '3'], 'USAGE_UNKNOWN_FLAG', /--maxNewTokens/);
    refused(['a', '-x'], 'USAGE_UNKNOWN_FLAG', /unknown flag -x/);
    refused(['a', '--no-temperature'], 'USAGE_UNKNOWN_FLAG', /--no-temperature/);
    refused(['a', 'b'], 'USAGE_EXTRA_ARGUMENT', /"b"/);
    refused([], 'USAGE_MISSING_ARGUMENT', /FILE/);
  });

  it('refuses a flag without its value', () => {
    refused(['a', '--temperature'], 'USAGE_MISSING_VALUE', /--temperature/);
    refused(['a', '--temperature='], 'USAGE_MISSING_VALUE', /--temperature/);
    refused(['a', '--temperature', '--compare'], 'USAGE_MISSING_VALUE', /--temperature/);
    refused(['a', '--compare=maybe'], 'USAGE_BAD_VALUE', /--compare: "maybe"/);
  });

  it('takes flags from the environment, the command line winning', () => {
    const environment = { SMOE_MAX_NEW_TOKENS: '3', SMOE_COMPARE: '1' };
    const flags = readArguments(['a'], args, environment);
    assert.equal(flags.integer('max-new-tokens'), 3);
    assert.equal(flags.boolean('compare'), true);
    assert.equal(readArguments(['a', '--max-new-tokens', '4'], args, environment).integer('max-new-tokens'), 4);
    assert.equal(readArguments(['a', '--no-compare'], args, environment).boolean('compare'), false);
    assert.equal(readArguments(['a'], args, { SMOE_COMPARE: 'off' }).boolean('compare'), false);
    assert.equal(readArguments(['a'], args, { SMOE_MAX_NEW_TOKENS: '' }).integer('max-new-tokens'), 16);
    refused(['a'], 'USAGE_BAD_VALUE', /SMOE_COMPARE: "2"/, { SMOE_COMPARE: '2' });
    assert.equal(environmentName('max-new-tokens'), 'SMOE_MAX_NEW_TOKENS');
  });

  it('reads numbers and choices strictly', () => {
    const read = (value: string) => readArguments(['a', `--temperature=${value}`], args, {});
    for (const bad of ['x', '1e', '0x', 'NaN', 'Infinity', '1,5']) {
      assert.throws(
        () => read(bad).number('temperature'),
        { code: 'USAGE_BAD_VALUE', message: /^--temperature: / },
        bad,
      );
    }
    for (const bad of ['1.5', '1e3', '', ' 1']) {
      if (bad !== '') assert.throws(() => read(bad).integer('temperature'), { code: 'USAGE_BAD_VALUE' }, bad);
    }
    assert.throws(() => read('9').integer('temperature', { minimum: 1, maximum: 8 }), {
      message: /a whole number from 1 to 8$/,
    });
    assert.throws(() => read('0').integer('temperature', { minimum: 1 }), { message: /a whole number, 1 or more$/ });
    assert.equal(read('hot').choice('temperature', ['hot', 'cold']), 'hot');
    assert.throws(() => read('hott').choice('temperature', ['hot', 'cold']), { hint: 'did you mean hot?' });
    assert.deepEqual(read('cold, hot').choices('temperature', ['hot', 'cold']), ['cold', 'hot']);
    assert.deepEqual(read('a, b').list('temperature'), ['a', 'b']);
    assert.throws(() => read('a,,b').list('temperature'), { message: /empty word/ });
    assert.throws(() => read('hot,hot').choices('temperature', ['hot', 'cold']), { message: /hot is named twice/ });
  });
});

describe('did you mean', () => {
  it('counts insertions, deletions, replacements and swaps', () => {
    assert.equal(editDistance('', 'abc'), 3);
    assert.equal(editDistance('abc', 'abc'), 0);
    assert.equal(editDistance('comapre', 'compare'), 1);
    assert.equal(editDistance('kitten', 'sitting'), 3);
  });

  it('offers the nearest word, none when all are far', () => {
    assert.equal(didYouMean('comapre', ['generate', 'compare']), 'compare');
    assert.equal(didYouMean('xyz', ['generate', 'compare']), undefined);
  });
});
