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
  /** Root of a broadcast (a rank of the whole group), length of an all-reduce, and the like. */
  parameter: number;
}

/** What to say when two ranks are at different operations, or at the same one with different parameters. */
export function describeMismatch(theirs: OperationAtRank, own: OperationAtRank): string {
  if (theirs.operation === own.operation && own.operation !== 'broadcast')
    return `${own.operation}: rank ${theirs.rank} gives ${theirs.parameter}, rank ${own.rank} ${own.parameter}`;
  const described = ({ operation, parameter }: OperationAtRank): string =>
    operation === 'broadcast' ? `broadcast from rank ${parameter}` : String(operation);
  return `rank ${theirs.rank} is at ${described(theirs)} while rank ${own.rank} is at ${described(own)}`;
}
