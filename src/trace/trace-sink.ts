import { ExitStatus, SmoeError } from '../errors.ts';
import { badRecord, badShape } from './bad-record.ts';
import { TraceWriter } from './parquet.ts';
import type { TraceModel, TraceRows } from './routing-trace.ts';

const rowsPerFlush = 8192;
const mostExperts = 65_536;
const mostTokenIds = 2 ** 31 - 1;

/** What is known of the model before the first row; undefined is found out from the data. */
export interface KnownModel {
  fingerprint: string;
  /** MoE layers to keep, the first ones; data with fewer is refused. */
  layers: number | undefined;
  experts: number | undefined;
  topK: number | undefined;
  vocabularySize: number | undefined;
  /** Rows come with the numbers of a renumbered checkpoint and are kept with those of the original: [L][N] (expert-numbers.ts). */
  expertOfPosition?: readonly Uint16Array[];
}

export const unknownModel: KnownModel = {
  fingerprint: 'unknown',
  layers: undefined,
  experts: undefined,
  topK: undefined,
  vocabularySize: undefined,
};

export interface SinkReport {
  model: TraceModel;
  rows: number;
  requests: number;
  /** Rows with a token id. */
  rowsWithToken: number;
  /** What was assumed or left out, for people. */
  notes: string[];
}

/** Says where the row being added comes from; called only when it is refused. */
export type Where = () => string;

/**
 * Takes routing row by row from anywhere and writes it as a trace file: checks every row, sorts its experts, and holds no more
 * than one row group in memory. Call `finish` or `abandon` exactly once.
 */
export class TraceSink {
  readonly known: KnownModel;
  readonly notes: string[] = [];
  readonly #path: string;
  readonly #mostRows: number;
  readonly #signal: AbortSignal | undefined;
  #writer: TraceWriter | undefined;
  #layers: number = 0;
  #topK: number = 0;
  #rows: TraceRows | undefined;
  #written: number = 0;
  #withToken: number = 0;
  #largestExpert: number = -1;
  #largestToken: number = -1;
  #labels: string[] = [];
  #pendingLabel: string | undefined;
  #lastPosition: number = -1;

  /** @param signal ends it: the next row is refused with INTERRUPTED */
  constructor(path: string, known: KnownModel, mostRows: number = Number.POSITIVE_INFINITY, signal?: AbortSignal) {
    this.#path = path;
    this.known = known;
    this.#mostRows = mostRows;
    this.#signal = signal;
  }

  /** True once as many rows are held as were asked for; more would be refused. */
  get full(): boolean {
    return this.length >= this.#mostRows;
  }

  get length(): number {
    return this.#written + (this.#rows?.length ?? 0);
  }

  /**
   * Says the shape of the rows to come; every call must say the same. Returns the layers to add per row: all of them, or as many as
   * `known.layers` keeps.
   */
  shape(where: Where, layers: number, topK: number, hasWeights: boolean): number {
    const { known } = this;
    if (!Number.isInteger(layers) || layers < 1 || !Number.isInteger(topK) || topK < 1 || topK > 255) {
      throw badShape(
        where(),
        `${layers} MoE layers of ${topK} experts per token`,
        'expected at least one layer and 1 to 255 experts',
      );
    }
    const keptLayers = known.layers ?? layers;
    if (layers < keptLayers) {
      throw badShape(
        where(),
        `holds ${layers} MoE layers, expected ${keptLayers}`,
        'layers are missing; or give the right --layers',
      );
    }
    const numbered = known.expertOfPosition?.length ?? keptLayers;
    if (keptLayers > numbered) {
      throw badShape(
        where(),
        `${keptLayers} MoE layers, --expert-numbers knows ${numbered}`,
        'give those of this model',
      );
    }
    if (known.topK !== undefined && topK !== known.topK) {
      throw badShape(
        where(),
        `${topK} experts per token, expected ${known.topK}`,
        'give the right --experts-per-token',
      );
    }
    if (this.#writer === undefined) this.#open(keptLayers, topK, hasWeights);
    const fixed = `${this.#layers} MoE layers and ${this.#topK} experts per token`;
    if (keptLayers !== this.#layers || topK !== this.#topK) {
      throw badShape(
        where(),
        `${layers} MoE layers and ${topK} experts per token, but ${fixed} before`,
        'one trace holds one model',
      );
    }
    if (hasWeights !== (this.#rows!.weights !== undefined)) {
      throw badShape(
        where(),
        `routing weights ${hasWeights ? 'appear' : 'are missing'} here, not so before`,
        'all rows or none',
      );
    }
    return this.#layers;
  }

  /** The rows to come are of another request. One that gets no row is left out. */
  beginRequest(label: string = ''): void {
    this.#pendingLabel = label;
  }

  /**
   * Adds a row; `shape` came before.
   *
   * @param experts [L][k] ids in any order, from `offset` on
   * @param weights [L][k] in the order of `experts`, from the same offset
   */
  add(
    where: Where,
    position: number,
    token: number,
    phase: 0 | 1,
    experts: ArrayLike<number>,
    offset: number = 0,
    weights?: ArrayLike<number>,
  ): void {
    const rows = this.#rows!;
    if (this.#signal?.aborted === true)
      throw new SmoeError('INTERRUPTED', 'interrupted', { exitStatus: ExitStatus.interrupted });
    if (this.#pendingLabel !== undefined) {
      this.#labels.push(this.#pendingLabel);
      this.#pendingLabel = undefined;
      this.#lastPosition = -1;
    }
    if (!Number.isInteger(position) || position < 0 || position > mostTokenIds) {
      throw badRecord(where(), `position ${String(position)} is not an integer from 0`);
    }
    if (position <= this.#lastPosition) {
      throw badRecord(
        where(),
        `position ${position} does not ascend after ${this.#lastPosition} in its request`,
        'sort by request and position',
      );
    }
    const mostTokens = this.known.vocabularySize ?? mostTokenIds;
    if (!Number.isInteger(token) || token < -1 || token >= mostTokens) {
      throw badRecord(where(), `token ${String(token)} is outside the vocabulary of ${mostTokens}`);
    }
    this.#addExperts(where, rows, experts, offset, weights);
    const row = rows.length++;
    rows.request[row] = this.#labels.length - 1;
    rows.position[row] = position;
    rows.token[row] = token;
    rows.phase[row] = phase;
    this.#lastPosition = position;
    if (token >= 0) this.#withToken++;
    if (token > this.#largestToken) this.#largestToken = token;
    if (rows.length === rowsPerFlush) this.#flush();
  }

  /** Completes the file. @param source what the trace says of itself */
  finish(source: string): SinkReport {
    if (this.length === 0) {
      this.abandon();
      throw new SmoeError('TRACE_EMPTY', `${source}: holds no routed token`, {
        hint: 'is it the right file, and complete?',
      });
    }
    const { fingerprint, experts, vocabularySize } = this.known;
    const model: TraceModel = {
      fingerprint,
      layers: this.#layers,
      experts: experts ?? Math.max(this.#largestExpert + 1, this.#topK),
      topK: this.#topK,
      vocabularySize: this.#withToken === 0 ? 0 : (vocabularySize ?? this.#largestToken + 1),
    };
    if (experts === undefined) {
      this.notes.push(
        `the data do not say how many experts there are: taken as ${model.experts}, the largest id + 1; --experts corrects it`,
      );
    }
    if (this.#withToken === 0) {
      this.notes.push(
        'token ids are unknown: placement and simulation work, prediction tables and coverage by token id do not',
      );
    } else if (vocabularySize === undefined) {
      this.notes.push(
        `vocabulary size taken as ${model.vocabularySize}, the largest token id + 1; --vocabulary corrects it`,
      );
    }
    this.#flush();
    this.#writer!.finish(source, this.#labels, model);
    return {
      model,
      rows: this.#written,
      requests: this.#labels.length,
      rowsWithToken: this.#withToken,
      notes: this.notes,
    };
  }

  abandon(): void {
    this.#writer?.abandon();
  }

  #open(layers: number, topK: number, hasWeights: boolean): void {
    const { fingerprint, experts, vocabularySize } = this.known;
    const width = layers * topK;
    this.#layers = layers;
    this.#topK = topK;
    this.#writer = new TraceWriter(
      this.#path,
      { fingerprint, layers, topK, experts: experts ?? mostExperts, vocabularySize: vocabularySize ?? mostTokenIds },
      hasWeights,
    );
    this.#rows = {
      length: 0,
      request: new Int32Array(rowsPerFlush),
      position: new Int32Array(rowsPerFlush),
      token: new Int32Array(rowsPerFlush),
      phase: new Uint8Array(rowsPerFlush),
      experts: new Uint16Array(rowsPerFlush * width),
      weights: hasWeights ? new Float32Array(rowsPerFlush * width) : undefined,
    };
  }

  /** Copies a row's experts, ascending per layer by insertion. */
  #addExperts(
    where: Where,
    rows: TraceRows,
    experts: ArrayLike<number>,
    offset: number,
    weights?: ArrayLike<number>,
  ): void {
    const topK = this.#topK;
    const { experts: known, expertOfPosition } = this.known;
    const most = known ?? mostExperts;
    const base = rows.length * this.#layers * topK;
    if (offset + this.#layers * topK > experts.length) throw badRecord(where(), 'experts are missing');
    for (let layer = 0; layer < this.#layers; layer++) {
      const first = base + layer * topK;
      for (let i = 0; i < topK; i++) {
        const from = offset + layer * topK + i;
        const given = experts[from]!;
        if (!Number.isInteger(given) || given < 0 || given >= most) {
          throw badRecord(
            where(),
            `MoE layer ${layer}: expert ${String(given)} of ${most}`,
            known === undefined ? 'expert ids are integers from 0' : 'correct the record, or --experts',
          );
        }
        const expert = expertOfPosition === undefined ? given : expertOfPosition[layer]![given]!;
        let at = first + i;
        while (at > first && rows.experts[at - 1]! > expert) {
          rows.experts[at] = rows.experts[at - 1]!;
          if (rows.weights !== undefined) rows.weights[at] = rows.weights[at - 1]!;
          at--;
        }
        if (at > first && rows.experts[at - 1] === expert) {
          throw badRecord(
            where(),
            `MoE layer ${layer}: expert ${given} appears twice`,
            'the k experts of a token are distinct',
          );
        }
        rows.experts[at] = expert;
        if (rows.weights !== undefined) rows.weights[at] = weights![from]!;
        if (expert > this.#largestExpert) this.#largestExpert = expert;
      }
    }
  }

  #flush(): void {
    const rows = this.#rows!;
    if (rows.length === 0) return;
    this.#writer!.append(rows);
    this.#written += rows.length;
    rows.length = 0;
  }
}
