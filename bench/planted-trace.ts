import { SeededRandom } from '../src/plan/seeded-random.ts';
import { TraceWriter } from '../src/trace/parquet.ts';
import type { TraceModel, TraceRows } from '../src/trace/routing-trace.ts';

export interface PlantedTraceOptions extends Omit<TraceModel, 'fingerprint'> {
  tokens: number;
  seed: number;
}

const tokensPerRequest = 512;
const topics = 8;
const expertsPerCommunity = 16;
/** Share of a token's experts drawn from its community of the layer; the rest come from all experts. */
const loyalty = 0.7;
/** Chance that a token follows the community its id leans to, and then that of its request's topic. */
const byToken = 0.55;
const byTopic = 0.25;
const chunkRows = 8192;

/**
 * Routing made up for measuring speed, and for nothing else: real traces of this size are not at hand, and quality on made-up ones
 * means nothing. Experts of each layer fall into planted communities of 16 at random; a token mostly draws from one of them, chosen by
 * its id (Zipf-like frequencies), its request's topic or chance; within a community and over all experts, popularity falls off. So
 * sets are as varied as real ones, loads are uneven and there is something to find. Written while it is made, 8192 rows at a time.
 */
export function writePlantedTrace(path: string, options: PlantedTraceOptions): void {
  const { tokens, seed, layers, experts, topK, vocabularySize } = options;
  const model: TraceModel = { fingerprint: 'planted', layers, experts, topK, vocabularySize };
  const random = new SeededRandom(seed);
  const communities = Math.max(2, Math.floor(experts / expertsPerCommunity));
  /** [L][N] expert at each place; places of one community are consecutive. */
  const expertAt = new Uint16Array(layers * experts);
  const order = new Int32Array(experts).map((_, i) => i);
  for (let layer = 0; layer < layers; layer++) {
    random.shuffle(order);
    expertAt.set(order, layer * experts);
  }
  const size = Math.floor(experts / communities);
  const writer = new TraceWriter(path, model, false);
  const chosen = new Uint16Array(topK);
  for (let start = 0; start < tokens; start += chunkRows) {
    const rows = emptyRows(Math.min(chunkRows, tokens - start), layers * topK);
    for (let row = 0, at = 0; row < rows.length; row++) {
      const index = start + row;
      const request = Math.floor(index / tokensPerRequest);
      const token = Math.floor(vocabularySize * random.unit() ** 4);
      rows.request[row] = request;
      rows.position[row] = index % tokensPerRequest;
      rows.token[row] = token;
      for (let layer = 0; layer < layers; layer++) {
        const chance = random.unit();
        const leader = chance < byToken ? token : chance < byToken + byTopic ? request % topics : random.bits() >>> 0;
        const community = mix(leader, layer) % communities;
        drawExperts(chosen, random, expertAt, layer * experts, experts, community * size, size);
        rows.experts.set(chosen, at);
        at += topK;
      }
    }
    writer.append(rows);
  }
  const requests = Math.ceil(tokens / tokensPerRequest);
  const labels = Array.from({ length: requests }, (_, request) => `topic-${request % topics}`);
  writer.finish('planted communities, for speed only', labels);
}

/** Distinct experts, ascending; fuller places of a community or of all are likelier. */
function drawExperts(
  chosen: Uint16Array,
  random: SeededRandom,
  expertAt: Uint16Array,
  offset: number,
  experts: number,
  first: number,
  size: number,
): void {
  for (let count = 0; count < chosen.length;) {
    const u = random.unit();
    const place = random.unit() < loyalty ? first + Math.floor(size * u * Math.sqrt(u)) : Math.floor(experts * u);
    const expert = expertAt[offset + place]!;
    let at = count;
    while (at > 0 && chosen[at - 1]! > expert) at--;
    if (at > 0 && chosen[at - 1] === expert) continue;
    for (let i = count; i > at; i--) chosen[i] = chosen[i - 1]!;
    chosen[at] = expert;
    count++;
  }
}

/** A number that depends on both, evenly. */
function mix(a: number, b: number): number {
  let hash = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 1, 0xc2b2ae35);
  hash = Math.imul(hash ^ (hash >>> 15), 0x27d4eb2f);
  return (hash ^ (hash >>> 13)) >>> 0;
}

function emptyRows(length: number, width: number): TraceRows {
  return {
    length,
    request: new Int32Array(length),
    position: new Int32Array(length),
    token: new Int32Array(length),
    phase: new Uint8Array(length),
    experts: new Uint16Array(length * width),
    weights: undefined,
  };
}
