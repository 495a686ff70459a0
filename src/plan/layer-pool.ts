import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { deserializeError, ExitStatus, type SerializedError, SmoeError } from '../errors.ts';
import { type LayerInput, type LayerOutput, type LayerTaskName, layerTasks } from './layer-tasks.ts';

export interface LayerPoolOptions {
  layers: number;
  /** By default one per core; 1 solves on this thread. */
  threads?: number | undefined;
  timeLimitSeconds?: number | undefined;
  onProgress?: ((finishedLayers: number, layers: number) => void) | undefined;
  /** Ends all threads, with INTERRUPTED. */
  signal?: AbortSignal | undefined;
}

/**
 * Solves every layer, several at once. Inputs are made when a thread is free for them, so that only as many exist as there are
 * threads. Results do not depend on the number of threads unless a time limit cuts them short.
 *
 * @param inputOf the layer's input, given the milliseconds it may take (infinite without a limit)
 */
export async function solveLayers<Name extends LayerTaskName>(
  name: Name,
  inputOf: (layer: number, budgetMs: number) => LayerInput<Name> | Promise<LayerInput<Name>>,
  { layers, threads = availableParallelism(), timeLimitSeconds, onProgress, signal }: LayerPoolOptions,
): Promise<LayerOutput<Name>[]> {
  const workers = Math.min(threads, layers);
  const results: LayerOutput<Name>[] = [];
  const end = Date.now() + (timeLimitSeconds ?? Number.POSITIVE_INFINITY) * 1000;
  let next = 0;
  let finished = 0;
  /** The time left, shared by the layers still to do. */
  const budget = (): number =>
    timeLimitSeconds === undefined
      ? Number.POSITIVE_INFINITY
      : Math.max(0, ((end - Date.now()) * workers) / Math.max(workers, layers - next + 1));
  const run = async (solve: (input: LayerInput<Name>, layer: number) => Promise<LayerOutput<Name>>): Promise<void> => {
    while (next < layers) {
      if (signal?.aborted === true) throw interrupted();
      const layer = next++;
      results[layer] = await solve(await inputOf(layer, budget()), layer);
      onProgress?.(++finished, layers);
    }
  };
  if (workers <= 1) {
    const task = layerTasks[name] as (input: LayerInput<Name>) => LayerOutput<Name>;
    await run(async (input) => {
      // Lets a signal in between layers.
      await new Promise(setImmediate);
      return task(input);
    });
    return results;
  }
  const pool = Array.from({ length: workers }, () => new LayerThread());
  const stopped = new Promise<never>((_resolve, reject) =>
    signal?.addEventListener('abort', () => reject(interrupted())),
  );
  stopped.catch(() => {});
  try {
    const all = Promise.all(pool.map((thread) => run((input, layer) => thread.solve(name, input, layer))));
    await Promise.race([all, stopped]);
  } finally {
    await Promise.all(pool.map((thread) => thread.close()));
  }
  return results;
}

function interrupted(): SmoeError {
  return new SmoeError('INTERRUPTED', 'solving was interrupted', {
    hint: 'with --time-limit it stops by itself and keeps the best plan so far',
    exitStatus: ExitStatus.interrupted,
  });
}

class LayerThread {
  readonly #worker: Worker;

  constructor() {
    const extension = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    this.#worker = new Worker(new URL(`./layer-worker${extension}`, import.meta.url));
  }

  solve<Name extends LayerTaskName>(name: Name, input: LayerInput<Name>, layer: number): Promise<LayerOutput<Name>> {
    return new Promise((resolve, reject) => {
      const settle = (action: () => void): void => {
        this.#worker.off('message', onMessage);
        this.#worker.off('error', onError);
        action();
      };
      const onMessage = (message: { result: LayerOutput<Name> } | { error: SerializedError }): void =>
        settle(() =>
          'error' in message ? reject(deserializeError(message.error, `layer ${layer}`)) : resolve(message.result),
        );
      const onError = (error: Error): void => settle(() => reject(error));
      this.#worker.on('message', onMessage);
      this.#worker.on('error', onError);
      this.#worker.postMessage({ name, input });
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}
