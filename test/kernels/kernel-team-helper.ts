/** A helper for the test of KernelTeam: marks the parts it takes; a part that the caller waits for is one. */
import { workerData } from 'node:worker_threads';
import { KernelTeam } from '../../src/kernels/kernel-team.ts';

const { area, marks, helper } = workerData as { area: SharedArrayBuffer; marks: SharedArrayBuffer; helper: number };
const taken = new Int32Array(marks);
new KernelTeam(area).help((kind, args, part) => {
  if (kind === 9) throw new Error('no such kernel');
  Atomics.add(taken, args[0]! + part, helper);
  Atomics.add(taken, 0, 1);
  Atomics.notify(taken, 0);
});
