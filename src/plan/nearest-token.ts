/** Fewest sightings that make an id worth copying from, and most ids considered, the most frequent first. */
const fewestSightings = 3;
const mostCandidates = 2048;
/** Products beyond which a shortlist is chosen by some columns of the rows, spaced evenly. */
const mostProducts = 1e10;
const columnsAtFirst = 64;
const shortlistLength = 8;

/** The embedding matrix of a model: row v is the vector of token id v. */
export interface EmbeddingTable {
  /** [V][H] */
  values: Float32Array;
  hiddenSize: number;
}

/**
 * For every token id never seen, the seen id whose embedding row is nearest by cosine similarity; -1 for seen ids, and for all when
 * no id was seen often enough. Ties go to the more frequent id. Where comparing whole rows would take long, a few columns choose a
 * shortlist first.
 *
 * @param frequency [V] sightings of each id
 * @param wanted limits the ids to find a neighbour for
 * @returns [V]
 */
export function nearestSeenTokens(
  { values, hiddenSize }: EmbeddingTable,
  frequency: Int32Array,
  wanted: (id: number) => boolean = () => true,
): Int32Array {
  const nearest = new Int32Array(frequency.length).fill(-1);
  const ids = Array.from(frequency.keys());
  const candidates = ids
    .filter((id) => frequency[id]! >= fewestSightings)
    .sort((a, b) => frequency[b]! - frequency[a]! || a - b)
    .slice(0, mostCandidates);
  const unseen = ids.filter((id) => frequency[id] === 0 && wanted(id));
  if (candidates.length === 0 || unseen.length === 0) return nearest;
  const columns = unseen.length * candidates.length * hiddenSize > mostProducts ? columnsAtFirst : hiddenSize;
  const shortlist = columns < hiddenSize ? shortlistLength : 1;
  const stride = Math.floor(hiddenSize / columns);
  const candidateRows = unitRows(values, hiddenSize, candidates, candidates.length, columns, stride);
  const dots = new Float64Array(4);
  const best = new Float64Array(4 * shortlist);
  const found = new Int32Array(4 * shortlist);
  for (let start = 0; start < unseen.length; start += 4) {
    const block = unseen.slice(start, start + 4);
    const rows = unitRows(values, hiddenSize, block, 4, columns, stride);
    best.fill(Number.NEGATIVE_INFINITY);
    found.fill(-1);
    for (let candidate = 0; candidate < candidates.length; candidate++) {
      fourDots(rows, candidateRows, candidate * columns, columns, dots);
      for (let i = 0; i < block.length; i++) insert(best, found, i * shortlist, shortlist, dots[i]!, candidate);
    }
    block.forEach((id, i) => {
      const list = Array.from(found.subarray(i * shortlist, (i + 1) * shortlist)).filter((candidate) => candidate >= 0);
      nearest[id] = candidates[shortlist === 1 ? list[0]! : nearestOf(values, hiddenSize, id, list, candidates)]!;
    });
  }
  return nearest;
}

/** Keeps the `length` largest in falling order; a later equal one stays behind. */
function insert(
  best: Float64Array,
  found: Int32Array,
  from: number,
  length: number,
  dot: number,
  candidate: number,
): void {
  let at = from + length - 1;
  if (!(dot > best[at]!)) return;
  for (; at > from && dot > best[at - 1]!; at--) {
    best[at] = best[at - 1]!;
    found[at] = found[at - 1]!;
  }
  best[at] = dot;
  found[at] = candidate;
}

/** Of a shortlist of candidates, the one nearest by whole rows; ties to the lower. */
function nearestOf(values: Float32Array, hiddenSize: number, id: number, list: number[], candidates: number[]): number {
  const rows = unitRows(values, hiddenSize, [id, ...list.map((candidate) => candidates[candidate]!)]);
  let best = -1;
  let highest = Number.NEGATIVE_INFINITY;
  list.forEach((candidate, i) => {
    let dot = 0;
    for (let at = 0; at < hiddenSize; at++) dot += rows[at]! * rows[(i + 1) * hiddenSize + at]!;
    if (dot > highest || (dot === highest && candidate < best)) {
      highest = dot;
      best = candidate;
    }
  });
  return best;
}

/** [rows][columns] every `stride`th value of rows, scaled to length 1, in float64 to spare the inner loop the conversions; zero rows stay zero. */
function unitRows(
  values: Float32Array,
  hiddenSize: number,
  ids: number[],
  rows: number = ids.length,
  columns: number = hiddenSize,
  stride: number = 1,
): Float64Array {
  const unit = new Float64Array(rows * columns);
  ids.forEach((id, row) => {
    let square = 0;
    for (let i = 0; i < columns; i++) square += values[id * hiddenSize + i * stride]! ** 2;
    const scale = square > 0 ? 1 / Math.sqrt(square) : 0;
    for (let i = 0; i < columns; i++) unit[row * columns + i] = values[id * hiddenSize + i * stride]! * scale;
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
