import { SmoeError } from '../../errors.ts';
import { badRecord } from '../bad-record.ts';
import type { RecordedPass } from './recorder-stream.ts';

/** In `experts` of a compact pass: not filled. */
export const unfilled = 0xff_ff;

/** A pass without the rows its rank did not compute. L = layers, dense ones too; C = columns. */
export interface CompactPass extends Omit<RecordedPass, 'experts'> {
  /** Leading rows that hold experts; the others are -1 throughout. */
  rows: number;
  /** [rows][L][C] physical experts */
  experts: Uint16Array;
}

/** One batch of one attention group, whole. T = tokens. */
export interface Batch {
  /** Its lowest rank, which names the attention group. */
  group: number;
  mode: number;
  /** [T] */
  inputIds: Int32Array;
  positions: Int32Array;
  segments: Int32Array | undefined;
  columns: number;
  /** [T][L][C] physical experts */
  experts: Uint16Array;
}

export function compact(pass: RecordedPass, layers: number): CompactPass {
  const { experts, columns, inputIds } = pass;
  const tokens = inputIds.length;
  const width = layers * columns;
  let rows = tokens;
  const filled = (row: number): boolean => {
    for (let layer = 0; layer < layers; layer++) {
      const at = (layer * tokens + row) * columns;
      for (let i = 0; i < columns; i++) if (experts[at + i]! >= 0) return true;
    }
    return false;
  };
  while (rows > 0 && !filled(rows - 1)) rows--;
  const kept = new Uint16Array(rows * width);
  for (let row = 0; row < rows; row++) {
    for (let layer = 0; layer < layers; layer++) {
      for (let i = 0; i < columns; i++) {
        const expert = experts[(layer * tokens + row) * columns + i]!;
        kept[row * width + layer * columns + i] = expert < 0 ? unfilled : expert;
      }
    }
  }
  return { ...pass, rows, experts: kept };
}

export interface JoinReport {
  batches: Batch[];
  /** Tokens whose rows are another attention group's. */
  foreignTokens: number;
}

/**
 * Puts together what the ranks recorded of one forward pass. Ranks with the same tokens are one attention group: each saw them all, or, where
 * an all-to-all back end splits them over the group, a contiguous slice in rank order. Without such a back end under data-parallel attention
 * the experts see the tokens of all groups, first group first, while the recorder notes a group's own token ids beside the leading rows:
 * then only the first group's rows are its own.
 */
export function joinRanks(where: string, passes: CompactPass[]): JoinReport {
  const groups = new Map<string, CompactPass[]>();
  for (const pass of [...passes].sort((a, b) => a.rank - b.rank)) {
    if (pass.inputIds.length === 0) continue;
    const key = `${pass.mode} ${pass.inputIds.join(',')} ${pass.positions.join(',')}`;
    const group = groups.get(key) ?? [];
    if (group.some(({ rank }) => rank === pass.rank)) {
      throw badRecord(
        where,
        `rank ${pass.rank} recorded pass ${pass.pass} twice`,
        'import the dumps of one recording, of one run of the server, at a time',
      );
    }
    groups.set(key, [...group, pass]);
  }
  const batches: Batch[] = [];
  let foreignTokens = 0;
  const [first, ...others] = groups.values();
  if (first !== undefined) batches.push(joinGroup(where, first));
  for (const group of others) {
    if (holdsRowsOf(group[0]!, first![0]!)) foreignTokens += group[0]!.inputIds.length;
    else batches.push(joinGroup(where, group));
  }
  return { batches, foreignTokens };
}

function joinGroup(where: string, group: CompactPass[]): Batch {
  const { rank, pass, mode, inputIds, positions, segments } = group[0]!;
  const tokens = inputIds.length;
  const columns = Math.max(...group.map((part) => part.columns));
  const whole = group.find(({ rows }) => rows === tokens);
  const parts = whole === undefined ? group : [whole];
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  // Where padding counts as rows, every slice is the longest and the last rows are no tokens.
  const padded = rows > tokens && parts.every((part) => part.rows === Math.ceil(tokens / parts.length));
  if (rows !== tokens && !padded) {
    throw new SmoeError(
      'TRACE_RANKS_MISSING',
      `${where}: pass ${pass}: ranks ${group.map((part) => part.rank).join(', ')} hold ${rows} of ${tokens} tokens`,
      { hint: 'each rank writes a file of its own: put those of all ranks in one folder and import the folder' },
    );
  }
  if (parts.some((part) => part.columns !== columns)) {
    throw badRecord(where, `pass ${pass}: ranks filled different numbers of experts per token`);
  }
  const width = (parts[0]!.experts.length / parts[0]!.rows) | 0;
  const experts = new Uint16Array(tokens * width);
  let at = 0;
  for (const part of parts) {
    experts.set(part.experts.subarray(0, Math.min(part.experts.length, experts.length - at)), at);
    at += part.experts.length;
    if (at >= experts.length) break;
  }
  return { group: rank, mode, inputIds, positions, segments, columns, experts };
}

/** Other tokens, and the same experts for all of them: they cannot be this group's own. */
function holdsRowsOf(pass: CompactPass, first: CompactPass): boolean {
  const rows = Math.min(pass.rows, first.rows);
  if (rows === 0 || pass.columns !== first.columns) return false;
  const width = pass.experts.length / pass.rows;
  for (let at = 0; at < rows * width; at++) if (pass.experts[at] !== first.experts[at]) return false;
  for (let row = 0; row < rows; row++) {
    if (pass.inputIds[row] !== first.inputIds[row] || pass.positions[row] !== first.positions[row]) return true;
  }
  return false;
}
