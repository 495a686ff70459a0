/** Bootstrap of one rank: connects it to its peers, loads the entry module, then runs one job after another. */
import { parentPort, workerData } from 'node:worker_threads';
import { serializeError, SmoeError } from '../errors.ts';
import type { CreateRank, MessageFromRank, MessageToRank, RankStart } from './rank-protocol.ts';
import { SingleCommunicator } from './single.ts';
import { connectThreads, type ThreadCommunicator } from './threads.ts';

const { rank, size, entry, data, wiring } = workerData as RankStart;
const host = parentPort!;
const threads: ThreadCommunicator | undefined = wiring && connectThreads(wiring);

function post(message: MessageFromRank): void {
  host.postMessage(message);
}

/** Runs one phase of the rank; its error reaches the host before the peers learn that something is wrong. */
async function guarded(phase: () => Promise<void>): Promise<void> {
  try {
    await phase();
  } catch (error) {
    post({ type: 'error', error: serializeError(error) });
    threads?.abort();
  }
}

await guarded(async () => {
  const { createRank } = (await import(entry)) as { createRank?: CreateRank };
  if (typeof createRank !== 'function') {
    throw new SmoeError('RANK_ENTRY', `${entry} does not export a function named createRank`);
  }
  const communicator = threads ?? new SingleCommunicator();
  const runJob = await createRank({
    communicator,
    rank,
    size,
    data,
    emit: (event) => post({ type: 'event', event }),
  });
  host.on('message', ({ job }: MessageToRank) => {
    void guarded(async () => {
      const report = await runJob(job);
      threads?.finishJob();
      post({ type: 'report', report });
    });
  });
  post({ type: 'ready' });
});
