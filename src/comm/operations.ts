/** The names of everything ranks do together; they travel between ranks as indices and appear in error messages. */
export const operations = [
  'barrier',
  'broadcast',
  'all-gather',
  'all-to-all',
  'reduce-scatter',
  'all-reduce',
  'all-reduce-maximum',
  'split',
  'attach memory',
  'end of job',
] as const;
export type Operation = (typeof operations)[number];

/** What a rank is at, as far as peers must agree on it. */
export interface OperationAtRank {
  /** Number in the whole group. */
  rank: number;
  operation: Operation | undefined;
  /** Root of a broadcast (a rank of the whole group), length of an all-reduce, 1 for an all-to-all up to limits, and the like. */
  parameter: number;
}

/** What to say of an all-to-all's segment of another length than its receiver expects, or of more bytes than it has room for. */
export function describeSegment(from: number, given: number, to: number, expected: number, isLimit: boolean): string {
  return `all-to-all: rank ${from} sends ${given} bytes to rank ${to}, which expects ${isLimit ? 'at most ' : ''}${expected}`;
}

/** What to say when two ranks are at different operations, or at the same one with different parameters. */
export function describeMismatch(theirs: OperationAtRank, own: OperationAtRank): string {
  if (theirs.operation === 'all-to-all' && own.operation === 'all-to-all') {
    const [knowing, other] = theirs.parameter === 0 ? [theirs, own] : [own, theirs];
    return `all-to-all: rank ${knowing.rank} knows what it gets, rank ${other.rank} only limits`;
  }
  if (theirs.operation === own.operation && own.operation !== 'broadcast')
    return `${own.operation}: rank ${theirs.rank} gives ${theirs.parameter}, rank ${own.rank} ${own.parameter}`;
  const described = ({ operation, parameter }: OperationAtRank): string =>
    operation === 'broadcast' ? `broadcast from rank ${parameter}` : String(operation);
  return `rank ${theirs.rank} is at ${described(theirs)} while rank ${own.rank} is at ${described(own)}`;
}
