/** What kernels.wasm exports: bytes are addressed by `number`, shapes and counts are integers. */
export interface KernelExports {
  addTo(a: number, b: number, target: number, count: number): void;
  applyRope(
    x: number,
    stride: number,
    positions: number,
    rows: number,
    heads: number,
    dimension: number,
    cosines: number,
    sines: number,
  ): void;
  argmaxRow(x: number, count: number): number;
  attention(
    query: number,
    queryStride: number,
    rows: number,
    firstPosition: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    scale: number,
    window: number,
    keyPool: number,
    valuePool: number,
    pageTable: number,
    output: number,
    outputStride: number,
    scratch: number,
  ): void;
  compactRows(source: number, index: number, target: number, rows: number, width: number): number;
  copy(source: number, target: number, bytes: number): void;
  embedRowsBf16(packed: number, inputs: number, ids: number, rows: number, target: number): void;
  embedRowsF32(packed: number, inputs: number, ids: number, rows: number, target: number): void;
  expandRows(source: number, index: number, target: number, rows: number, width: number): number;
  exponential(x: number, y: number, count: number): void;
  fillZero(target: number, bytes: number): void;
  gatherAt(addresses: number, target: number, rows: number, width: number): void;
  gatherRows(source: number, index: number, target: number, rows: number, width: number): void;
  matmulBf16(...shape: MatmulArguments): void;
  matmulF32(...shape: MatmulArguments): void;
  packBf16(...shape: PackArguments): void;
  packF32(...shape: PackArguments): void;
  rmsNorm(
    x: number,
    xStride: number,
    weight: number,
    y: number,
    yStride: number,
    rows: number,
    width: number,
    epsilon: number,
  ): void;
  rmsNormAt(addresses: number, weight: number, y: number, rows: number, width: number, epsilon: number): void;
  ropeTables(cosines: number, sines: number, positions: number, dimension: number, theta: number): void;
  routeAhead(
    logits: number,
    rows: number,
    experts: number,
    k: number,
    doubt: number,
    owners: number,
    ranks: number,
    held: number,
    homes: number,
    scale: number,
    scratch: number,
    benefits: number,
  ): void;
  routerTopK(
    logits: number,
    stride: number,
    rows: number,
    experts: number,
    k: number,
    normalize: boolean,
    ids: number,
    weights: number,
  ): void;
  scatterAddRows(source: number, index: number, target: number, rows: number, width: number): void;
  scatterAddWeighted(source: number, index: number, weights: number, target: number, rows: number, width: number): void;
  scatterRows(source: number, index: number, target: number, rows: number, width: number): void;
  softmaxRows(x: number, stride: number, rows: number, width: number): void;
  staticEnd(): number;
  storeKeyValue(
    key: number,
    keyStride: number,
    value: number,
    valueStride: number,
    rows: number,
    firstPosition: number,
    pageTable: number,
    keyPool: number,
    valuePool: number,
    kvHeads: number,
    headDim: number,
  ): void;
  streamSum(pointer: number, bytes: number): number;
  swiglu(gateUp: number, stride: number, y: number, yStride: number, rows: number, width: number): void;
  unpackRowBf16(packed: number, inputs: number, n: number, target: number): void;
  unpackRowF32(packed: number, inputs: number, n: number, target: number): void;
}

type MatmulArguments = [
  x: number,
  xStride: number,
  rows: number,
  packed: number,
  outputs: number,
  inputs: number,
  y: number,
  yStride: number,
  panelStart: number,
  panelEnd: number,
];

type PackArguments = [
  source: number,
  sourceRowStride: number,
  sourceColumn: number,
  packed: number,
  outputs: number,
  inputs: number,
];
