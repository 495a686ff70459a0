/**
 * Makes a clone ready to run: dependencies, kernels, compiled TypeScript. Does only what is missing or out of date, going
 * by content, so that it can stand before every command. Everything it says goes to stderr.
 *
 *   node scripts/ensure.mjs [--build] [--quiet]
 *
 * --build rebuilds whatever the stamps say; --quiet prints nothing but errors. Only Node's own modules are used here.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const leastNode = [20, 19];
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const compiledFolders = ['src', 'test', 'bench'];

const options = new Set(process.argv.slice(2));
const forced = options.has('--build');
const quiet = options.has('--quiet');

checkNode();
process.chdir(root);
ensureDependencies();
const kernelsBuilt = ensureKernels();
const compiled = ensureCompiled();
if (forced && !kernelsBuilt && !compiled) say('nothing to build');

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > leastNode[0] || (major === leastNode[0] && minor >= leastNode[1])) return;
  fail(
    `Node.js ${process.versions.node} is too old: ${leastNode.join('.')} or newer is needed`,
    'install a current Node.js from https://nodejs.org',
  );
}

/** 1. node_modules as package-lock.json says. */
function ensureDependencies() {
  const stamp = 'node_modules/.speculative-moe-lock';
  const wanted = hashOf(['package-lock.json']);
  if (readStamp(stamp) === wanted) return;
  say('installing dependencies (npm ci)');
  run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'], {
    shell: process.platform === 'win32',
  });
  writeStamp(stamp, wanted);
}

/** 2. dist/kernels/kernels.wasm; compiling it takes seconds, so it has a stamp of its own. */
function ensureKernels() {
  const stamp = 'dist/kernels/.stamp';
  const wanted = hashOf(['src/kernels/assembly', 'scripts/build-kernels.mjs', 'package-lock.json']);
  if (!forced && existsSync('dist/kernels/kernels.wasm') && readStamp(stamp) === wanted) return false;
  say('compiling kernels');
  run(process.execPath, ['scripts/build-kernels.mjs']);
  writeStamp(stamp, wanted);
  return true;
}

/** 3. dist/{src,test,bench} from TypeScript. The stamp is removed first: a build that fails leaves none. */
function ensureCompiled() {
  const stamp = 'dist/.stamp';
  const wanted = hashOf([...compiledFolders, 'tsconfig.json', 'package-lock.json']);
  const found = readStamp(stamp);
  if (!forced && found === wanted && existsSync('dist/src')) return false;
  say('compiling TypeScript');
  rmSync(stamp, { force: true });
  if (forced || found === undefined) {
    for (const folder of compiledFolders) rmSync(join('dist', folder), { recursive: true, force: true });
    rmSync('dist/.tsbuildinfo', { force: true });
  } else {
    for (const folder of compiledFolders) removeOrphans(join('dist', folder), folder);
  }
  run(process.execPath, ['node_modules/typescript/bin/tsc', '--pretty', String(process.stderr.isTTY === true)]);
  writeStamp(stamp, wanted);
  return true;
}

/** Deletes compiled files whose source is gone, so that a deleted test does not go on running. */
function removeOrphans(compiledFolder, sourceFolder) {
  if (!existsSync(compiledFolder)) return;
  for (const entry of readdirSync(compiledFolder, { withFileTypes: true })) {
    const compiled = join(compiledFolder, entry.name);
    if (entry.isDirectory()) {
      const source = join(sourceFolder, entry.name);
      if (existsSync(source)) removeOrphans(compiled, source);
      else rmSync(compiled, { recursive: true });
      continue;
    }
    const stem = entry.name.replace(/(\.d\.ts|\.js)(\.map)?$/, '');
    if (stem !== entry.name && !existsSync(join(sourceFolder, `${stem}.ts`))) rmSync(compiled);
  }
}

/** SHA-256 over names and contents of files and folders; what is missing counts as empty. */
function hashOf(paths) {
  const hash = createHash('sha256');
  const add = (path) => {
    if (!existsSync(path)) return;
    let entries;
    try {
      entries = readdirSync(path, { withFileTypes: true });
    } catch {
      const content = readFileSync(path);
      hash.update(`${path.replaceAll('\\', '/')}\0${content.length}\0`).update(content);
      return;
    }
    for (const { name } of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) add(join(path, name));
  };
  for (const path of paths) add(path);
  return hash.digest('hex');
}

function readStamp(path) {
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
}

function writeStamp(path, content) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${content}\n`);
}

/** Runs a step with its output on stderr; ends this process when it fails. */
function run(command, args, extra = {}) {
  const { status, signal, error, stdout } = spawnSync(command, args, {
    stdio: ['ignore', quiet ? 'pipe' : 2, 2],
    ...extra,
  });
  if (error !== undefined) fail(`${command} could not be started: ${error.message}`, `is ${command} installed?`);
  if (quiet && (status !== 0 || signal !== null)) process.stderr.write(stdout ?? '');
  if (signal !== null) fail(`${command} ${args[0]} was ended by ${signal}`, 'run the command again');
  if (status !== 0) fail(`${[command, ...args].join(' ')} ended with status ${status}`, 'see the lines above');
}

function say(line) {
  if (!quiet) process.stderr.write(`smoe: ${line}\n`);
}

function fail(message, hint) {
  process.stderr.write(`error BUILD: ${message}\nhint: ${hint}\n`);
  process.exit(1);
}
