/** The kernels as exported from kernels.wasm; see ../kernels.ts for what each does. */
export { swiglu } from './activation';
export { attention } from './attention';
export { storeKeyValue } from './cache';
export { compactRows, expandRows } from './compact-rows';
export { exponential } from './exponential';
export { matmulBf16, matmulF32 } from './matmul';
export { rmsNorm, rmsNormAt } from './normalization';
export { embedRowsBf16, embedRowsF32, packBf16, packF32, unpackRowBf16, unpackRowF32 } from './panel';
export { applyRope, ropeTables } from './rope';
export { routeAhead } from './route-ahead';
export { routerTopK } from './router';
export {
  addTo,
  argmaxRow,
  copy,
  fillZero,
  gatherAt,
  gatherRows,
  scatterAddRows,
  scatterAddWeighted,
  scatterRows,
  streamSum,
} from './rows';
export { softmaxRows } from './softmax';

/** First byte after the static data. */
export function staticEnd(): usize {
  return __heap_base;
}
