import { ExitStatus, SmoeError } from '../errors.ts';
import type { RoutingTrace } from '../trace/routing-trace.ts';

/** Tokens that go through a layer together, of every data-parallel group. */
export interface TokenBatch {
  /** [n] trace rows, group by group, within a group in the order of the engine's batch. */
  rows: Int32Array;
  /** [dp] rows of each group. */
  groupTokens: Int32Array;
}

/** One engine step. */
export interface SimulatedStep extends TokenBatch {
  /** [dp] rows whose next token is chosen. */
  sampled: Int32Array;
  /** Of the rows, those that decode. */
  decodeTokens: number;
}

/** Both halves of a step as the engine cuts it: of every group, the first half of its tokens and the rest. */
export function halvesOf({ rows, groupTokens }: TokenBatch): [TokenBatch, TokenBatch] {
  const parts: [number[], number[]] = [[], []];
  let at = 0;
  for (const tokens of groupTokens) {
    const middle = at + Math.ceil(tokens / 2);
    parts[0].push(...rows.subarray(at, middle));
    parts[1].push(...rows.subarray(middle, at + tokens));
    at += tokens;
  }
  return [
    { rows: Int32Array.from(parts[0]), groupTokens: groupTokens.map((tokens) => Math.ceil(tokens / 2)) },
    { rows: Int32Array.from(parts[1]), groupTokens: groupTokens.map((tokens) => Math.floor(tokens / 2)) },
  ];
}

/**
 * What of a trace is replayed as what: as recorded; every token as part of a prompt; or every token as decoded, one per step and
 * sequence (for traces of texts, to study decode batches).
 */
export const phaseChoices = ['recorded', 'prefill', 'decode'] as const;
export type PhaseChoice = (typeof phaseChoices)[number];

export interface StepComposition {
  /** Most tokens of a step per data-parallel group. */
  stepTokens: number;
  /** Most sequences under way per data-parallel group. */
  decodeBatch: number;
  phases: PhaseChoice;
  /** Stop after so many steps; undefined = replay everything. */
  maximumSteps?: number;
}

interface ReplayedSequence {
  firstRow: number;
  promptRows: number;
  rows: number;
  computed: number;
}

/** First row, prompt rows and rows of every request of a trace. */
export function requestRows(trace: RoutingTrace): { firstRow: number; promptRows: number; rows: number }[] {
  const requests: { firstRow: number; promptRows: number; rows: number }[] = [];
  for (let row = 0; row < trace.length; row++) {
    if (row === 0 || trace.request[row] !== trace.request[row - 1])
      requests.push({ firstRow: row, promptRows: 0, rows: 0 });
    const request = requests.at(-1)!;
    request.rows++;
    if (trace.phase[row] === 0) request.promptRows = request.rows;
  }
  return requests;
}

/**
 * The steps in which an engine would compute the trace, as its batcher plans them (engine/batcher.ts): every running sequence
 * decodes one token, then prompts fill up the step in request order; all requests wait from the start.
 *
 * @param placement [requests] data-parallel rank of each request
 */
export function composeSteps(
  trace: RoutingTrace,
  placement: Int32Array,
  dataParallel: number,
  { stepTokens, decodeBatch, phases, maximumSteps = Number.POSITIVE_INFINITY }: StepComposition,
): SimulatedStep[] {
  const groups = Array.from(
    { length: dataParallel },
    () => new ReplayedGroup(stepTokens, Math.min(stepTokens, decodeBatch)),
  );
  requestRows(trace).forEach(({ firstRow, promptRows, rows }, request) => {
    const prompt = phases === 'recorded' ? promptRows : phases === 'prefill' ? rows : 0;
    groups[placement[request]!]!.waiting.push({ firstRow, promptRows: prompt, rows, computed: 0 });
  });
  const steps: SimulatedStep[] = [];
  while (steps.length < maximumSteps) {
    const parts = groups.map((group) => group.next());
    const rows = Int32Array.from(parts.flatMap((part) => part.rows));
    if (rows.length === 0) break;
    steps.push({
      rows,
      groupTokens: Int32Array.from(parts, (part) => part.rows.length),
      sampled: Int32Array.from(parts, (part) => part.sampled),
      decodeTokens: parts.reduce((sum, part) => sum + part.decodeTokens, 0),
    });
  }
  return steps;
}

class ReplayedGroup {
  readonly waiting: ReplayedSequence[];
  #running: ReplayedSequence[];
  readonly #stepTokens: number;
  readonly #mostRunning: number;

  constructor(stepTokens: number, mostRunning: number) {
    this.waiting = [];
    this.#running = [];
    this.#stepTokens = stepTokens;
    this.#mostRunning = mostRunning;
  }

  next(): { rows: number[]; sampled: number; decodeTokens: number } {
    while (this.waiting.length > 0 && this.#running.length < this.#mostRunning)
      this.#running.push(this.waiting.shift()!);
    const rows: number[] = [];
    let sampled = 0;
    let decodeTokens = 0;
    const take = (sequence: ReplayedSequence, count: number): void => {
      for (let i = 0; i < count; i++) rows.push(sequence.firstRow + sequence.computed++);
    };
    // Which sequences decode is settled before any prompt is taken: one that ends its prompt now decodes in the next step.
    const decoding = this.#running.filter(({ computed, promptRows }) => computed >= promptRows);
    const inPrompt = this.#running.filter(({ computed, promptRows }) => computed < promptRows);
    for (const sequence of decoding) {
      if (rows.length === this.#stepTokens) break;
      take(sequence, 1);
      sampled++;
      decodeTokens++;
    }
    for (const sequence of inPrompt) {
      take(sequence, Math.min(this.#stepTokens - rows.length, sequence.promptRows - sequence.computed));
      if (sequence.computed === sequence.promptRows) sampled++;
    }
    this.#running = this.#running.filter((sequence) => sequence.computed < sequence.rows);
    return { rows, sampled, decodeTokens };
  }
}

/** Throws SIMULATE_NO_STEPS when a composition leaves nothing to replay. */
export function assertSteps(steps: SimulatedStep[]): void {
  if (steps.length > 0) return;
  throw new SmoeError('SIMULATE_NO_STEPS', 'the trace and the step composition leave no step to replay', {
    hint: 'replay at least one step of at least one token',
    exitStatus: ExitStatus.usage,
  });
}
