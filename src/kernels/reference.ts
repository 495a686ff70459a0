/**
 * Every kernel once more in plain TypeScript on Float32Array, one operation at a time and each rounded with
 * Math.fround: same bits as the WebAssembly, for tests and for reading. Shapes are those of kernels.ts.
 */
const round = Math.fround;

/** W: [outputs][inputs], float32 or bfloat16 already widened. */
export function matmul(
  x: Float32Array,
  xStride: number,
  rows: number,
  w: Float32Array,
  outputs: number,
  inputs: number,
  y: Float32Array,
  yStride: number,
): void {
  for (let m = 0; m < rows; m++) {
    for (let n = 0; n < outputs; n++) {
      let sum = 0;
      for (let k = 0; k < inputs; k++) sum = round(sum + round(x[m * xStride + k] * w[n * inputs + k]));
      y[m * yStride + n] = sum;
    }
  }
}

/** The sixteen-lane order of assembly/lanes.ts. */
export function laneSum(width: number, element: (i: number) => number): number {
  const lanes = new Float32Array(16);
  for (let i = 0; i < width; i++) lanes[i % 16] += element(i);
  const t = [0, 1, 2, 3].map((c) => round(round(lanes[c] + lanes[4 + c]) + round(lanes[8 + c] + lanes[12 + c])));
  return round(round(t[0] + t[1]) + round(t[2] + t[3]));
}

export function rmsNorm(
  x: Float32Array,
  xStride: number,
  weight: Float32Array,
  y: Float32Array,
  yStride: number,
  rows: number,
  width: number,
  epsilon: number,
): void {
  for (let row = 0; row < rows; row++) {
    const squares = laneSum(width, (i) => round(x[row * xStride + i] * x[row * xStride + i]));
    const mean = round(squares / width);
    const scale = round(1 / round(Math.sqrt(round(mean + round(epsilon)))));
    for (let i = 0; i < width; i++) y[row * yStride + i] = weight[i] * round(x[row * xStride + i] * scale);
  }
}

const word = new Int32Array(1);
const wordAsFloat = new Float32Array(word.buffer);

/** 2^exponent for a normal float32. */
function powerOfTwo(exponent: number): number {
  word[0] = (exponent + 127) << 23;
  return wordAsFloat[0];
}

const polynomial = [
  1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
].map(round);

/** e^x as assembly/exponential.ts computes it. */
export function exponential(x: number): number {
  if (Number.isNaN(x)) return NaN;
  const bounded = Math.min(Math.max(x, -105), 90);
  const rounder = 12582912;
  const n = round(round(round(bounded * round(1.4426950408889634)) + rounder) - rounder);
  let r = round(bounded - round(n * round(0.693359375)));
  r = round(r + round(n * round(2.1219444e-4)));
  const high = polynomial.reduce((p, c) => round(round(p * r) + c));
  const p = round(round(round(high * round(r * r)) + r) + 1);
  const half = n >> 1;
  return round(round(p * powerOfTwo(half)) * powerOfTwo(n - half));
}

export function swiglu(
  gateUp: Float32Array,
  stride: number,
  y: Float32Array,
  yStride: number,
  rows: number,
  width: number,
): void {
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < width; i++) {
      const gate = gateUp[row * stride + i];
      const silu = round(gate / round(1 + exponential(-gate)));
      y[row * yStride + i] = silu * gateUp[row * stride + width + i];
    }
  }
}

/** In place; returns nothing, x: [rows][stride]. */
export function softmaxRows(x: Float32Array, stride: number, rows: number, width: number): void {
  for (let row = 0; row < rows; row++) {
    const values = x.subarray(row * stride, row * stride + width);
    const sum = exponentiate(values);
    for (let i = 0; i < width; i++) values[i] /= sum;
  }
}

/** values[i] = e^(values[i] - largest); returns the sum. */
function exponentiate(values: Float32Array): number {
  const largest = values.reduce((a, b) => Math.max(a, b), -Infinity);
  for (let i = 0; i < values.length; i++) values[i] = exponential(round(values[i] - largest));
  return laneSum(values.length, (i) => values[i]);
}

export function ropeTables(
  cosines: Float32Array,
  sines: Float32Array,
  positions: number,
  dimension: number,
  theta: number,
): void {
  const half = dimension / 2;
  for (let i = 0; i < half; i++) {
    const frequency = round(1 / round(theta ** round((2 * i) / dimension)));
    for (let position = 0; position < positions; position++) {
      const angle = round(position * frequency);
      cosines[position * half + i] = Math.cos(angle);
      sines[position * half + i] = Math.sin(angle);
    }
  }
}

export function applyRope(
  x: Float32Array,
  stride: number,
  positions: Int32Array,
  rows: number,
  heads: number,
  dimension: number,
  cosines: Float32Array,
  sines: Float32Array,
): void {
  const half = dimension / 2;
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < half; i++) {
        const at = row * stride + head * dimension + i;
        const cosine = cosines[positions[row] * half + i];
        const sine = sines[positions[row] * half + i];
        const a = x[at];
        const b = x[at + half];
        x[at] = round(a * cosine) - round(b * sine);
        x[at + half] = round(b * cosine) + round(a * sine);
      }
    }
  }
}

/**
 * Attention of one sequence over plain keys and values: [positions][kvHeads][headDim], of which the last `rows` are
 * the queries' own positions.
 */
export function attention(
  query: Float32Array,
  queryStride: number,
  rows: number,
  firstPosition: number,
  heads: number,
  kvHeads: number,
  headDim: number,
  scale: number,
  window: number,
  keys: Float32Array,
  values: Float32Array,
  output: Float32Array,
  outputStride: number,
): void {
  for (let row = 0; row < rows; row++) {
    const last = firstPosition + row;
    const first = window > 0 ? Math.max(0, last - window + 1) : 0;
    for (let head = 0; head < heads; head++) {
      const from = row * queryStride + head * headDim;
      const to = row * outputStride + head * headDim;
      const kvHead = Math.floor(head / (heads / kvHeads));
      const place = (position: number): number => (position * kvHeads + kvHead) * headDim;
      // Starts at a page's first position: lanes of the sum are absolute positions modulo 16.
      const base = first - (first % 16);
      const weights = new Float32Array(last + 1 - base).fill(-Infinity);
      for (let position = first; position <= last; position++) {
        let score = 0;
        for (let d = 0; d < headDim; d++) score = round(score + round(query[from + d] * keys[place(position) + d]));
        weights[position - base] = round(score * round(scale));
      }
      const sum = exponentiate(weights);
      for (let d = 0; d < headDim; d++) {
        let value = 0;
        for (let position = first; position <= last; position++) {
          value = round(value + round(weights[position - base] * values[place(position) + d]));
        }
        output[to + d] = value / sum;
      }
    }
  }
}

export function routerTopK(
  logits: Float32Array,
  stride: number,
  rows: number,
  experts: number,
  k: number,
  normalize: boolean,
  ids: Int32Array,
  weights: Float32Array,
): void {
  for (let row = 0; row < rows; row++) {
    const values = logits.slice(row * stride, row * stride + experts);
    const byLogit = Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);
    const chosen = byLogit.slice(0, k).sort((a, b) => a - b);
    const sum = exponentiate(values);
    const probabilities = chosen.map((expert) => round(values[expert] / sum));
    const total = probabilities.reduce((a, b) => round(a + b), 0);
    ids.set(chosen, row * k);
    weights.set(normalize ? probabilities.map((p) => round(p / total)) : probabilities, row * k);
  }
}

/** target[index[i]] += weights[i] * source[i], or += source[i] without weights. */
export function scatterAdd(
  source: Float32Array,
  index: Int32Array,
  weights: Float32Array | undefined,
  target: Float32Array,
  rows: number,
  width: number,
): void {
  for (let i = 0; i < rows; i++) {
    for (let column = 0; column < width; column++) {
      const value = source[i * width + column];
      target[index[i] * width + column] += weights === undefined ? value : round(weights[i] * value);
    }
  }
}

/** benefits: [rows][homes], 0..255; held: [homes][experts]. */
export function routeAhead(
  logits: Float32Array,
  rows: number,
  k: number,
  doubt: number,
  owners: ArrayLike<number>,
  ranks: number,
  held: ArrayLike<number>,
  homes: number,
  scale: number,
  benefits: Uint8Array,
): void {
  const experts = owners.length;
  for (let row = 0; row < rows; row++) {
    const own = logits.subarray(row * experts, (row + 1) * experts);
    const falling = [...own].sort((a, b) => b - a);
    const boundary = experts > k ? round(round(falling[k - 1] + falling[k]) * 0.5) : falling[k - 1];
    const mean = round(own.reduce((sum, logit) => round(sum + logit), 0) / experts);
    const deviation = own.reduce((sum, logit) => round(sum + Math.abs(round(logit - mean))), 0);
    const width = round(round(doubt) * round(deviation / experts));
    /** Probability that none is chosen of a rank's experts that pass. */
    const spared = (rank: number, passes: (expert: number) => boolean): number => {
      let product = 1;
      own.forEach((logit, expert) => {
        const above = round(logit - boundary);
        if (owners[expert] !== rank || !passes(expert) || (above <= -width && above < 0)) return;
        const x = round(above / width);
        const soft = round(0.5 - round(x * round(0.75 - round(round(0.25 * x) * x))));
        product = round(product * (above >= width ? 0 : soft));
      });
      return product;
    };
    for (let home = 0; home < homes; home++) {
      let saved = 0;
      for (let rank = 0; rank < ranks; rank++) {
        const left = spared(rank, (expert) => held[home * experts + expert] === 0);
        saved = round(saved + round(left - spared(rank, () => true)));
      }
      const benefit = Math.min(round(saved * scale), 255);
      const below = Math.floor(benefit);
      const up = benefit - below > 0.5 || (benefit - below === 0.5 && below % 2 === 1);
      benefits[row * homes + home] = benefit > 0 ? below + (up ? 1 : 0) : 0;
    }
  }
}

/** A row as assembly/compact-rows.ts writes it. */
export function compactRow(row: Float32Array): Uint8Array {
  const words = new Uint32Array(row.buffer, row.byteOffset, row.length);
  const exponents = Array.from(words, (word) => (word >>> 23) & 255);
  const highest = Math.max(0, Math.max(...exponents) - 7);
  const within = (base: number): number => exponents.filter((e) => e > base && e <= base + 7).length;
  const lower = [0, 1, 2, 3].reduce((best, lower) => (within(highest - lower) > within(highest - best) ? lower : best));
  const base = Math.max(0, highest - lower);
  const codes = exponents.map((e) => (e > base && e <= base + 7 ? e - base : 0));
  const bytes = [base];
  for (let block = 0; block < row.length; block += 16) {
    for (const word of words.subarray(block, block + 16)) {
      const rest = ((word << 1) | (word >>> 31)) & 0xffffff;
      bytes.push(rest & 255, (rest >>> 8) & 255, rest >>> 16);
    }
    for (const bit of [2, 1, 0]) {
      const plane = codes.slice(block, block + 16).reduce((sum, code, i) => sum + (((code >>> bit) & 1) << i), 0);
      bytes.push(plane & 255, plane >>> 8);
    }
  }
  bytes.push(...exponents.filter((_, i) => codes[i] === 0));
  if (bytes.length < 1 + 4 * row.length) return Uint8Array.from(bytes);
  return Uint8Array.from([255, ...new Uint8Array(row.buffer, row.byteOffset, row.byteLength)]);
}
