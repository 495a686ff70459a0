import type { Purpose } from '../comm/communicator.ts';

/** The collectives of every layer, in the order they happen. */
export const layerExchangeNames = [
  'attentionSum',
  'sizes',
  'capacity',
  'dispatch',
  'combine',
  'attentionGather',
] as const;
export type LayerExchangeName = (typeof layerExchangeNames)[number];
/** Once a step: `activity` before it, `sampling` after it. */
export type ExchangeName = LayerExchangeName | 'activity' | 'sampling';

export const exchangePurposes: Readonly<Record<ExchangeName, Purpose>> = {
  activity: 'control',
  attentionSum: 'attention',
  sizes: 'control',
  capacity: 'control',
  dispatch: 'dispatch',
  combine: 'combine',
  attentionGather: 'attention',
  sampling: 'control',
};

/** One collective as seen from outside: what every rank hands to every other, counted as a Communicator counts it. */
export class Exchange {
  readonly name: ExchangeName;
  readonly purpose: Purpose;
  readonly ranks: number;
  /** [G][G] payload from source (row) to destination. */
  readonly bytes: Float64Array;
  /** [G][G] messages with a payload. */
  readonly messages: Int32Array;
  /** Rounds that wait for each other; an all-reduce has two. */
  rounds: number;

  constructor(name: ExchangeName, ranks: number) {
    this.name = name;
    this.purpose = exchangePurposes[name];
    this.ranks = ranks;
    this.bytes = new Float64Array(ranks * ranks);
    this.messages = new Int32Array(ranks * ranks);
    this.rounds = 1;
  }

  clear(): void {
    this.bytes.fill(0);
    this.messages.fill(0);
    this.rounds = 1;
  }

  /** One message; what goes to oneself and what is empty is not sent. */
  send(source: number, destination: number, bytes: number): void {
    if (source === destination || bytes === 0) return;
    const pair = source * this.ranks + destination;
    this.bytes[pair]! += bytes;
    this.messages[pair]!++;
  }

  /** The same from every rank of a block to every other rank of it. */
  sendToAll(first: number, end: number, bytesOf: (source: number, destination: number) => number): void {
    for (let source = first; source < end; source++) {
      for (let destination = first; destination < end; destination++) {
        if (source !== destination) this.send(source, destination, bytesOf(source, destination));
      }
    }
  }
}
