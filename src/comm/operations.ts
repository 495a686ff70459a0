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
