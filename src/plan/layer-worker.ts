import { parentPort } from 'node:worker_threads';
import { serializeError } from '../errors.ts';
import { type LayerTaskName, layerTasks } from './layer-tasks.ts';

/** Thread that solves one layer after another for layer-pool.ts. */
const port = parentPort!;
port.on('message', ({ name, input }: { name: LayerTaskName; input: never }) => {
  try {
    port.postMessage({ result: layerTasks[name](input) });
  } catch (error) {
    port.postMessage({ error: serializeError(error) });
  }
});
