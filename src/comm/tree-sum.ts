/**
 * Balanced binary tree sums in float32, the one order of summation every transport must reproduce.
 *
 * Two tree levels are done at once: four neighbouring nodes (fewer at the end) become one. That is the same tree
 * as pairing neighbours level by level, with half the passes. Adding two float32 values in float64 and rounding
 * once gives the correctly rounded float32 sum, so `Math.fround` after each addition is exact.
 */

/** Elements per pass: four inputs and one output of this many floats stay in a first-level cache. */
const tileLength = 1024;
const groupSize = 4;

/** Sums `size` vectors; owns the scratch tiles, so one instance serves every call of a communicator. */
export class TreeSum {
  /** Node vectors of each level above the ranks except the last: [ceil(nodes / 4)][tileLength] each. */
  private readonly levels: { tiles: Float32Array[]; offsets: number[] }[] = [];

  constructor(size: number) {
    for (let nodes = Math.ceil(size / groupSize); nodes > 1; nodes = Math.ceil(nodes / groupSize)) {
      this.levels.push({
        tiles: Array.from({ length: nodes }, () => new Float32Array(tileLength)),
        offsets: Array.from({ length: nodes }, () => 0),
      });
    }
  }

  /**
   * into[at + i] = tree over r of sources[r][offsets[r] + i] for i < length. `into` may be one of the sources at the
   * same offset.
   */
  sum(sources: Float32Array[], offsets: number[], length: number, into: Float32Array, at: number): void {
    for (let start = 0; start < length; start += tileLength) {
      const count = Math.min(tileLength, length - start);
      let nodes = sources;
      let nodeOffsets = offsets;
      let shift = start;
      for (const { tiles, offsets: tileOffsets } of this.levels) {
        for (let node = 0; node < tiles.length; node++) {
          sumGroup(nodes, nodeOffsets, node * groupSize, shift, count, tiles[node], 0);
        }
        nodes = tiles;
        nodeOffsets = tileOffsets;
        shift = 0;
      }
      sumGroup(nodes, nodeOffsets, 0, shift, count, into, at + start);
    }
  }
}

/** Sums nodes first..first+3, as far as they exist, each read from its offset + shift. */
function sumGroup(
  nodes: Float32Array[],
  offsets: number[],
  first: number,
  shift: number,
  length: number,
  into: Float32Array,
  at: number,
): void {
  const present = Math.min(groupSize, nodes.length - first);
  const a = nodes[first];
  const aAt = offsets[first] + shift;
  if (present === 1) {
    for (let i = 0; i < length; i++) into[at + i] = a[aAt + i];
    return;
  }
  const b = nodes[first + 1];
  const bAt = offsets[first + 1] + shift;
  if (present === 2) {
    for (let i = 0; i < length; i++) into[at + i] = a[aAt + i] + b[bAt + i];
    return;
  }
  const c = nodes[first + 2];
  const cAt = offsets[first + 2] + shift;
  if (present === 3) {
    for (let i = 0; i < length; i++) into[at + i] = Math.fround(a[aAt + i] + b[bAt + i]) + c[cAt + i];
    return;
  }
  const d = nodes[first + 3];
  const dAt = offsets[first + 3] + shift;
  for (let i = 0; i < length; i++) {
    into[at + i] = Math.fround(a[aAt + i] + b[bAt + i]) + Math.fround(c[cAt + i] + d[dAt + i]);
  }
}
