/**
 * A thread beside rank 0 that ends the process once nobody is at the other end of its standard input: the host has gone, and
 * the rank may be computing and look at nothing. mpirun then ends the other ranks.
 */
import { writeSync } from 'node:fs';
import { loadSystemCalls } from './mpi-library.ts';

const intervalMs = 250;
const standardInput = 0;

const system = loadSystemCalls();
let looksHungUp = 0;
setInterval(() => {
  // A second look, because mpirun also closes the pipe just before it ends the ranks itself.
  if (!system.hungUp(standardInput) || ++looksHungUp < 2) return;
  try {
    writeSync(2, 'smoe: the process that started the ranks has ended; ending them\n');
  } catch {
    // Nobody reads it either.
  }
  process.kill(process.pid, 'SIGKILL');
}, intervalMs);
