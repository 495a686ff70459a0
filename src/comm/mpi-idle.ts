/** Looks at the mail of a rank that has nothing to do, eagerly after the latest mail and ever less often after that. */
import { performance } from 'node:perf_hooks';
import type { MpiEndpoint } from './mpi-endpoint.ts';

const eagerMs = 5;
/** Naps grow with the quiet before them, up to this: ranks that wait for another session must not take its cores. */
const longestNapMs = 10;

/** Goes on until the returned function is called; an error while looking goes to `onError` and ends it. */
export function attendWhileIdle(endpoint: MpiEndpoint, onError: (error: unknown) => void): () => void {
  let latest = performance.now();
  let stopped = false;
  const look = (): void => {
    if (stopped) return;
    try {
      if (endpoint.attend()) latest = performance.now();
    } catch (error) {
      onError(error);
      return;
    }
    const quiet = performance.now() - latest;
    if (quiet < eagerMs) setImmediate(look);
    else setTimeout(look, Math.min(longestNapMs, 1 + quiet / 50));
  };
  setImmediate(look);
  return () => {
    stopped = true;
  };
}
