/** Fewest sightings that make an id worth copying from, and most ids considered, the most frequent first. */
const fewestSightings = 3;
const mostCandidates = 2048;

/** The embedding matrix of a model: row v is the vector of token id v. */
export interface EmbeddingTable {
  /** [V][H] */
  values: Float32Array;
  hiddenSize: number;
}

/**
 * For every token id never seen, the seen id whose embedding row is nearest by cosine similarity; -1 for seen ids, and for all when
 * no id was seen often enough. Ties go to the more frequent id.
 *
 * @param frequency [V] sightings of each id
 * @returns [V]
 */
export function nearestSeenTokens({ values, hiddenSize }: EmbeddingTable, frequency: Int32Array): Int32Array {
  const nearest = new Int32Array(frequency.length).fill(-1);
  const ids = Array.from(frequency.keys());
  const candidates = ids
    .filter((id) => frequency[id]! >= fewestSightings)
    .sort((a, b) => frequency[b]! - frequency[a]! || a - b)
    .slice(0, mostCandidates);
  const unseen = ids.filter((id) => frequency[id] === 0);
  if (candidates.length === 0 || unseen.length === 0) return nearest;
  const candidateRows = unitRows(values, hiddenSize, candidates);
  const dots = new Float64Array(4);
  for (let start = 0; start < unseen.length; start += 4) {
    const block = unseen.slice(start, start + 4);
    const rows = unitRows(values, hiddenSize, block, 4);
    const best = new Float64Array(4).fill(Number.NEGATIVE_INFINITY);
    for (let candidate = 0; candidate < candidates.length; candidate++) {
      fourDots(rows, candidateRows, candidate * hiddenSize, hiddenSize, dots);
      for (let i = 0; i < block.length; i++) {
        if (dots[i]! > best[i]!) {
          best[i] = dots[i]!;
          nearest[block[i]!] = candidates[candidate]!;
        }
      }
    }
  }
  return nearest;
}

/** [rows][H] rows scaled to length 1, in float64 to spare the inner loop the conversions; zero rows stay zero. */
function unitRows(values: Float32Array, hiddenSize: number, ids: number[], rows: number = ids.length): Float64Array {
  const unit = new Float64Array(rows * hiddenSize);
  ids.forEach((id, row) => {
    let square = 0;
    for (let i = 0; i < hiddenSize; i++) square += values[id * hiddenSize + i]! ** 2;
    const scale = square > 0 ? 1 / Math.sqrt(square) : 0;
    for (let i = 0; i < hiddenSize; i++) unit[row * hiddenSize + i] = values[id * hiddenSize + i]! * scale;
  });
  return unit;
}

/** dots[r] = rows[r] . other, for four rows at once so that each loaded value of `other` is used four times. */
function fourDots(
  rows: Float64Array,
  other: Float64Array,
  offset: number,
  hiddenSize: number,
  dots: Float64Array,
): void {
  let first = 0;
  let second = 0;
  let third = 0;
  let fourth = 0;
  for (let i = 0; i < hiddenSize; i++) {
    const value = other[offset + i]!;
    first += rows[i]! * value;
    second += rows[hiddenSize + i]! * value;
    third += rows[2 * hiddenSize + i]! * value;
    fourth += rows[3 * hiddenSize + i]! * value;
  }
  dots[0] = first;
  dots[1] = second;
  dots[2] = third;
  dots[3] = fourth;
}
