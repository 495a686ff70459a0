/** Scalar references of what collectives must produce. */

/** ((v0 + v1) + (v2 + v3)) + ... in float32, level by level; an unpaired last node moves up unchanged. */
export function treeSum(values: number[]): number {
  let nodes = values.map(Math.fround);
  while (nodes.length > 1) {
    const parents: number[] = [];
    for (let i = 0; i < nodes.length; i += 2) {
      parents.push(i + 1 < nodes.length ? Math.fround(nodes[i] + nodes[i + 1]) : nodes[i]);
    }
    nodes = parents;
  }
  return nodes[0];
}

/** A byte that differs by sender, receiver and position. */
export function testByte(step: number, from: number, to: number, index: number): number {
  return (step * 31 + from * 7 + to * 13 + index * 3 + (index >> 8)) & 255;
}

/** A float of varied sign and magnitude, so that the order of summation shows in the bits. */
export function testFloat(step: number, rank: number, index: number): number {
  let hash = Math.imul(step + 1, 0x9e3779b1) ^ Math.imul(rank + 1, 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  hash ^= hash >>> 13;
  return Math.fround((hash / 2 ** 31) * 2 ** ((hash >>> 4) % 12));
}
