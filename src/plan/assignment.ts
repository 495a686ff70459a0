/**
 * The permutation with the largest total score (Hungarian method with potentials, O(P^3)).
 *
 * @param score [P][P] score of giving row r column c
 * @returns [P] column of each row; ties resolved the same way every time
 */
export function bestAssignment(score: Float64Array, size: number): Int32Array {
  // Rows and columns count from 1 inside; column 0 is the virtual start of each augmenting path.
  const rowPotential = new Float64Array(size + 1);
  const columnPotential = new Float64Array(size + 1);
  const rowOfColumn = new Int32Array(size + 1);
  const previousColumn = new Int32Array(size + 1);
  const slack = new Float64Array(size + 1);
  const visited = new Uint8Array(size + 1);
  for (let row = 1; row <= size; row++) {
    slack.fill(Number.POSITIVE_INFINITY);
    visited.fill(0);
    rowOfColumn[0] = row;
    let column = 0;
    do {
      visited[column] = 1;
      const current = rowOfColumn[column]!;
      let nextColumn = 0;
      let least = Number.POSITIVE_INFINITY;
      for (let candidate = 1; candidate <= size; candidate++) {
        if (visited[candidate] === 1) continue;
        const cost =
          -score[(current - 1) * size + candidate - 1]! - rowPotential[current]! - columnPotential[candidate]!;
        if (cost < slack[candidate]!) {
          slack[candidate] = cost;
          previousColumn[candidate] = column;
        }
        if (slack[candidate]! < least) {
          least = slack[candidate]!;
          nextColumn = candidate;
        }
      }
      for (let candidate = 0; candidate <= size; candidate++) {
        if (visited[candidate] === 1) {
          rowPotential[rowOfColumn[candidate]!]! += least;
          columnPotential[candidate]! -= least;
        } else slack[candidate]! -= least;
      }
      column = nextColumn;
    } while (rowOfColumn[column] !== 0);
    while (column !== 0) {
      const before = previousColumn[column]!;
      rowOfColumn[column] = rowOfColumn[before]!;
      column = before;
    }
  }
  const columnOfRow = new Int32Array(size);
  for (let column = 1; column <= size; column++) columnOfRow[rowOfColumn[column]! - 1] = column - 1;
  return columnOfRow;
}
