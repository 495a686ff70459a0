import { Kernels } from '../kernels/kernels.ts';
import type { ModelConfig } from '../model/config.ts';
import type { Arena } from './arena.ts';
import type { Partition } from './partition.ts';

const mostSequences = 256;

/** Pages of one admitted sequence. */
export interface PageTable {
  slot: number;
  /** Pointer to int32 page ids. */
  pointer: number;
  pages: number[];
}

/**
 * Paged key-value cache of one rank: a pool of pages per layer, one page table per running sequence. Every tensor rank
 * of a group makes the same decisions, so tables agree without a message.
 */
export class PageCache {
  /** Per layer. */
  readonly keyPools: number[];
  readonly valuePools: number[];
  readonly pageCount: number;
  readonly #tablePages: number;
  readonly #tables: number;
  readonly #freePages: number[];
  readonly #freeSlots: number[];

  /** @param positions positions of all sequences together that must fit */
  constructor(arena: Arena, config: ModelConfig, part: Partition, positions: number) {
    this.pageCount = Math.ceil(positions / Kernels.pageSize);
    const poolBytes = this.pageCount * Kernels.keyValuePageBytes(part.keyValueHeads, config.headDimension);
    this.keyPools = Array.from({ length: config.layers }, () => arena.reserve(poolBytes));
    this.valuePools = Array.from({ length: config.layers }, () => arena.reserve(poolBytes));
    this.#tablePages = Math.min(this.pageCount, pagesFor(config.maximumPositions));
    const slots = Math.min(mostSequences, this.pageCount);
    this.#tables = arena.reserve(slots * this.#tablePages * 4);
    this.#freePages = Array.from({ length: this.pageCount }, (_, page) => this.pageCount - 1 - page);
    this.#freeSlots = Array.from({ length: slots }, (_, slot) => slots - 1 - slot);
  }

  /** Pages for a sequence of `positions`, or undefined while there is no room. */
  admit(positions: number, integers: Int32Array): PageTable | undefined {
    const count = pagesFor(positions);
    if (this.#freeSlots.length === 0 || this.#freePages.length < count) return undefined;
    const slot = this.#freeSlots.pop()!;
    const pages = Array.from({ length: count }, () => this.#freePages.pop()!);
    const pointer = this.#tables + slot * this.#tablePages * 4;
    integers.set(pages, pointer / 4);
    return { slot, pointer, pages };
  }

  release(table: PageTable): void {
    this.#freePages.push(...table.pages);
    this.#freeSlots.push(table.slot);
  }
}

export function pagesFor(positions: number): number {
  return Math.ceil(positions / Kernels.pageSize);
}
