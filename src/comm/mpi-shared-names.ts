/**
 * Open MPI's ranks of one host exchange through a file of each in /dev/shm, which stays there when its process is killed. Once
 * all of them have mapped it the name is of no use, except that MPI_Finalize complains when it is missing.
 */
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { localRankInsideMpi } from './mpi-environment.ts';

/** Removes this rank's name; the returned function puts it back, as an empty file, for MPI_Finalize to remove. */
export function removeSharedNames(): () => void {
  const localRank = localRankInsideMpi();
  if (process.platform !== 'linux' || localRank === undefined) return () => undefined;
  const mapped = readFileSync('/proc/self/maps', 'utf8').matchAll(/ (\/\S+\/(?:vader|sm)_segment\.\S+\.(\d+))$/gm);
  const own = new Set([...mapped].filter(([, , rank]) => Number(rank) === localRank).map(([, path]) => path));
  const removed = [...own].filter((path) => quietly(() => unlinkSync(path)));
  return () => {
    for (const path of removed) quietly(() => writeFileSync(path, '', { flag: 'wx' }));
  };
}

/** Whether it went well. */
function quietly(action: () => void): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}
