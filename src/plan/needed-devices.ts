import type { RoutingTrace } from '../trace/routing-trace.ts';

/** Which devices the tokens of one layer need, as lists: what tables are counted from. n = tokens, k = experts per token. */
export interface NeededDevices {
  /** [n][k] devices that own at least one of the token's experts; the first `counts` of each row count */
  lists: Uint16Array;
  /** [n] */
  counts: Uint8Array;
  /** [n] device with most of the token's experts, ties to the lower: its best home */
  best: Uint16Array;
}

/** @param expertOwner [L][N] */
export function neededDevices(
  trace: RoutingTrace,
  expertOwner: Uint16Array,
  devices: number,
  layer: number,
): NeededDevices {
  const { layers, topK, experts } = trace.model;
  const owner = expertOwner.subarray(layer * experts, (layer + 1) * experts);
  const lists = new Uint16Array(trace.length * topK);
  const counts = new Uint8Array(trace.length);
  const best = new Uint16Array(trace.length);
  const pairs = new Uint8Array(devices);
  for (let row = 0; row < trace.length; row++) {
    const from = (row * layers + layer) * topK;
    const base = row * topK;
    let count = 0;
    for (let i = 0; i < topK; i++) {
      const device = owner[trace.experts[from + i]!]!;
      if (pairs[device]!++ === 0) lists[base + count++] = device;
    }
    let home = lists[base]!;
    let most = pairs[home]!;
    pairs[home] = 0;
    for (let i = 1; i < count; i++) {
      const device = lists[base + i]!;
      if (pairs[device]! > most || (pairs[device] === most && device < home)) {
        home = device;
        most = pairs[device]!;
      }
      pairs[device] = 0;
    }
    counts[row] = count;
    best[row] = home;
  }
  return { lists, counts, best };
}

/** [P] share of tokens that need each device. */
export function averageNeeds({ lists, counts }: NeededDevices, devices: number): Float64Array {
  const average = new Float64Array(devices);
  const width = lists.length / counts.length;
  for (let row = 0; row < counts.length; row++) {
    for (let at = row * width, end = at + counts[row]!; at < end; at++) average[lists[at]!]!++;
  }
  return average.map((tokens) => tokens / counts.length);
}
