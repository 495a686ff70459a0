/**
 * Preloaded by scripts/test.mjs: property tests draw the same cases on every run, so that a change and nothing else decides
 * whether they pass. `FUZZ_SEED=random npm test` draws new ones, `FUZZ_SEED=7 npm test` those of a seed that a failure named.
 */
import fc from 'fast-check';

const wanted = process.env.FUZZ_SEED ?? '2503';
if (wanted !== 'random') {
  const seed = Number(wanted);
  if (!Number.isInteger(seed)) throw new Error(`FUZZ_SEED is ${JSON.stringify(wanted)}, not an integer or "random"`);
  fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });
}
