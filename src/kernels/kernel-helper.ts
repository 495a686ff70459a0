/** A thread that helps another one with its kernel calls. */
import { workerData } from 'node:worker_threads';
import { runPart } from './kernel-parts.ts';
import { KernelTeam } from './kernel-team.ts';
import { Kernels } from './kernels.ts';
import type { HelperStart } from './threaded-kernels.ts';

const { memory, module, area } = workerData as HelperStart;
const kernels = new Kernels(memory, module);
new KernelTeam(area).help((kind, args, part) => runPart(kernels, kind, args, part));
