/**
 * Runs the checks and the compiled tests (scripts/ensure.mjs builds them first).
 *
 *   node scripts/test.mjs [--tests-only] [part of a path ...] [options of `node --test` ...]
 *
 * `npm test` checks formatting and lint, then runs every test. `npm test -- comm/ plan` runs only the test files whose path
 * contains one of the words; `npm test -- --test-name-pattern=tree` goes to Node's test runner. Either skips the checks, as does
 * --tests-only.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));

/** Longest time of one test, and of one file, on a machine busy with other things; a test that hangs must not hang the run. */
const testTimeoutMs = 480_000;
const folders = ['src', 'test', 'bench', 'scripts'];
const args = process.argv.slice(2);
const runnerOptions = args.filter((arg) => arg.startsWith('-') && arg !== '--tests-only');
const words = args.filter((arg) => !arg.startsWith('-'));

let failed = false;
if (args.length === 0) {
  check('format', ['node_modules/oxfmt/bin/oxfmt', '--check', ...folders], 'run `npm run format`');
  check('lint', ['node_modules/oxlint/bin/oxlint', '--deny-warnings', ...folders], 'see the lines above');
}

const all = testFiles('dist/test');
const files = words.length === 0 ? all : all.filter((file) => words.some((word) => file.includes(word)));
if (files.length === 0) {
  process.stderr.write(`error NO_TESTS: no test file of ${all.length} matches ${words.join(', ') || '*.test.js'}\n`);
  process.exit(1);
}
process.stderr.write(`smoe: ${files.length} test files on Node.js ${process.version}\n`);
const tests = spawnSync(
  process.execPath,
  [
    '--enable-source-maps',
    '--import=./dist/test/fixed-seed.js',
    '--test',
    '--test-concurrency=2',
    `--test-timeout=${testTimeoutMs}`,
    '--test-reporter=spec',
    ...runnerOptions,
    ...files,
  ],
  { stdio: 'inherit' },
);
await noteMissingMpi();
if (failed) process.stderr.write('error CHECKS: format or lint failed, see above\n');
process.exit(failed ? 1 : (tests.status ?? 1));

/** Skipped tests are easy to overlook among hundreds. */
async function noteMissingMpi() {
  if (!files.some((file) => file.includes('mpi'))) return;
  const { mpiProblem } = await import('../dist/src/comm/mpi-rank-group.js');
  const problem = await mpiProblem();
  if (problem === undefined) return;
  process.stderr.write(
    `note MPI: the tests of the mpi transport were skipped: ${problem.message}\nhint: ${problem.hint}\n`,
  );
}

/** A check that fails fails the run, after the tests have had their say. */
function check(name, command, hint) {
  const { status } = spawnSync(process.execPath, command, { stdio: ['ignore', 2, 2] });
  if (status === 0) return;
  failed = true;
  process.stderr.write(`error CHECKS: ${name} failed; ${hint}\n`);
}

function testFiles(folder) {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return testFiles(path);
      return entry.name.endsWith('.test.js') ? [path] : [];
    });
}
