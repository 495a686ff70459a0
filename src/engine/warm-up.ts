/**
 * Takes turns at `runs` until so much time has gone: compilers take a second or two of work to be done with a session's ranks, and ranks
 * that had less of it than others would look slower.
 */
export async function warmUp(runs: readonly (() => Promise<unknown>)[], milliseconds: number): Promise<void> {
  const until = performance.now() + milliseconds;
  for (let turn = 0; performance.now() < until; turn++) await runs[turn % runs.length]!();
}
