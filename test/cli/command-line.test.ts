import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runCommandLine, type CommandLine } from '../../src/cli/command-line.ts';
import type { Verb } from '../../src/cli/verb.ts';
import { SmoeError } from '../../src/errors.ts';

function verb(name: string, run: Verb['run']): Verb {
  const json = { type: 'boolean', description: 'JSON' } as const;
  return { name, summary: `Does ${name}`, args: { json }, examples: [{ command: name, does: 'an example' }], run };
}

const commandLine: CommandLine = {
  summary: 'A test',
  version: '1.2.3',
  examples: [],
  verbs: [
    verb('ok', async ({ console }) => {
      console.log('a note');
      console.progress('half way');
      console.out(`${console.style('bold', 'data')}\n`);
      return 0;
    }),
    verb('group fail', async () => {
      throw new SmoeError('NO_PLAN', 'there is none', { hint: 'make one', exitStatus: 3 });
    }),
    verb('group crash', async () => {
      throw new TypeError('undefined is not a function');
    }),
    verb('wait', async ({ signal }) => {
      signal.throwIfAborted();
      return 0;
    }),
  ],
};

interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

async function smoe(
  line: string,
  options: { tty?: boolean; environment?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<Outcome> {
  const outcome = { status: -1, stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => ({
    isTTY: options.tty === true,
    write: (text: string) => (outcome[name] += text),
  });
  const terminal = { stdout: stream('stdout'), stderr: stream('stderr'), environment: options.environment ?? {} };
  const argv = line.split(' ').filter((word) => word !== '');
  outcome.status = await runCommandLine(commandLine, argv, terminal, options.signal ?? new AbortController().signal);
  return outcome;
}

describe('command line', () => {
  it('sends data to stdout, notes to stderr, and progress to terminals only', async () => {
    assert.deepEqual(await smoe('ok'), { status: 0, stdout: 'data\n', stderr: 'a note\n' });
    assert.deepEqual(await smoe('ok --quiet'), { status: 0, stdout: 'data\n', stderr: '' });
    const terminal = await smoe('ok', { tty: true });
    assert.match(terminal.stderr, /half way/);
    assert.equal(terminal.stdout, '\u001B[1mdata\u001B[22m\n');
    assert.equal((await smoe('ok', { tty: true, environment: { NO_COLOR: '1' } })).stdout, 'data\n');
  });

  it('prints help and version on stdout', async () => {
    assert.match((await smoe('')).stdout, /smoe group fail +Does group fail/);
    assert.match((await smoe('--help')).stdout, /^A test/);
    assert.equal((await smoe('--version')).stdout, '1.2.3\n');
    assert.match((await smoe('group fail --help')).stdout, /^Does group fail\.\n\nUsage: smoe group fail \[options\]/);
  });

  it('prints failures with code and hint, and their own exit status', async () => {
    assert.deepEqual(await smoe('group fail'), {
      status: 3,
      stdout: '',
      stderr: 'error NO_PLAN: there is none\nhint: make one\n',
    });
    const json = await smoe('group fail --json');
    assert.deepEqual(JSON.parse(json.stdout), {
      error: { code: 'NO_PLAN', message: 'there is none', hint: 'make one' },
    });
    assert.match(json.stderr, /^error NO_PLAN/);
    const crash = await smoe('group crash');
    assert.equal(crash.status, 1);
    assert.match(crash.stderr, /command-line\.test.*\nerror INTERNAL: undefined is not a function\n/s);
  });

  it('refuses unknown commands and flags with status 2', async () => {
    assert.equal(
      (await smoe('okk')).stderr,
      'error USAGE_UNKNOWN_COMMAND: unknown command "okk"\nhint: did you mean ok?\n',
    );
    assert.match((await smoe('group crsh')).stderr, /hint: did you mean group crash\?/);
    assert.match((await smoe('group')).stderr, /hint: one of: group fail, group crash/);
    assert.match((await smoe('ok --jsno')).stderr, /unknown flag --jsno\nhint: did you mean --json\?/);
    assert.match((await smoe('--jsno')).stderr, /no command before --jsno/);
    for (const line of ['okk', 'group crsh', 'group', 'ok --jsno', '--jsno'])
      assert.equal((await smoe(line)).status, 2, line);
  });

  it('ends with 130 when interrupted', async () => {
    assert.equal((await smoe('wait', { signal: AbortSignal.abort() })).status, 130);
  });
});
