/**
 * Positive parameters that make `objective` small: from `start`, each is multiplied or divided by a factor while that helps, and the
 * factor shrinks when nothing does. Needs no derivatives and no luck: equal input gives equal output.
 */
export function minimizePositive(start: readonly number[], objective: (parameters: number[]) => number): number[] {
  let best = [...start];
  let least = objective(best);
  for (let factor = 2; factor > 1.002; factor = Math.sqrt(factor)) {
    for (let improved = true; improved;) {
      improved = false;
      for (let i = 0; i < best.length; i++) {
        for (const change of [factor, 1 / factor]) {
          const tried = best.with(i, best[i]! * change);
          const value = objective(tried);
          // Gains too small to see would go on for ever.
          if (value >= least * (1 - 1e-9) - 1e-15) continue;
          best = tried;
          least = value;
          improved = true;
        }
      }
    }
  }
  return best;
}

/** Relative error that treats twice too much and half of it alike. */
export function squaredLogRatio(predicted: number, measured: number): number {
  return Math.log(predicted / measured) ** 2;
}
