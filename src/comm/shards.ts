/** How `allReduce` splits a buffer: near-equal shards, the first `length % size` of them one element longer. */

/** Elements of `rank`'s shard. */
export function shardLength(length: number, size: number, rank: number): number {
  return Math.floor(length / size) + (rank < length % size ? 1 : 0);
}

/** First element of `rank`'s shard. */
export function shardStart(length: number, size: number, rank: number): number {
  return rank * Math.floor(length / size) + Math.min(rank, length % size);
}
