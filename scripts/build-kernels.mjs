// Compiles src/kernels/assembly to dist/kernels/kernels.wasm, or to the path given.
import { mkdirSync, renameSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import asc from 'assemblyscript/asc';

const root = fileURLToPath(new URL('..', import.meta.url));
const output = resolve(process.argv[2] ?? `${root}/dist/kernels/kernels.wasm`);
const temporary = `${output}.${process.pid}.tmp`;
mkdirSync(dirname(output), { recursive: true });

const { error, stderr } = await asc.main([
  ...[`${root}/src/kernels/assembly/index.ts`, '--outFile', temporary],
  ...['--optimizeLevel', '3', '--shrinkLevel', '0', '--converge', '--noAssert'],
  ...['--enable', 'simd', '--enable', 'threads'],
  ...['--runtime', 'stub', '--use', 'abort='],
  ...['--importMemory', '--sharedMemory', '--initialMemory', '1', '--maximumMemory', '65536', '--noExportMemory'],
  ...['--memoryBase', '1024'],
]);
if (error) {
  process.stderr.write(`${stderr.toString()}${error.message}\n`);
  process.exit(1);
}
renameSync(temporary, output);
