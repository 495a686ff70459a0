import { SmoeError } from '../errors.ts';
import { readJsonFile } from '../model/json-file.ts';

/** How the experts of a renumbered checkpoint (`smoe export --format checkpoint`) stand to those of the original. */
export interface ExpertNumbers {
  originalFingerprint: string;
  /** N */
  experts: number;
  /** [L] of the MoE layers: [N] number in the original of the expert at each position */
  expertOfPosition: Uint16Array[];
}

const mostLayers = 4096;
const mostExperts = 65_536;

/** The `expert-numbers.json` inside a renumbered checkpoint. EXPERT_NUMBERS errors. */
export function readExpertNumbers(path: string): ExpertNumbers {
  const refuse = (problem: string): SmoeError =>
    new SmoeError('EXPERT_NUMBERS', `${path}: ${problem}`, {
      hint: 'name the expert-numbers.json inside a checkpoint that smoe export --format checkpoint has written',
    });
  const content = readJsonFile(path) as
    | { originalFingerprint?: unknown; expertOfPosition?: unknown }
    | undefined
    | null;
  if (content === undefined) throw refuse('is not there');
  const { originalFingerprint, expertOfPosition: rows } = content ?? {};
  if (
    typeof originalFingerprint !== 'string' ||
    !Array.isArray(rows) ||
    rows.length === 0 ||
    rows.length > mostLayers
  ) {
    throw refuse('holds no originalFingerprint, or no list expertOfPosition of MoE layers');
  }
  const experts = Array.isArray(rows[0]) ? rows[0].length : 0;
  const expertOfPosition = rows.map((row: unknown, layer) => {
    if (!Array.isArray(row) || row.length !== experts || experts < 1 || experts > mostExperts || !isPermutation(row)) {
      throw refuse(`MoE layer ${layer}: is not each of ${experts} experts once`);
    }
    return Uint16Array.from(row);
  });
  return { originalFingerprint, experts, expertOfPosition };
}

function isPermutation(row: unknown[]): row is number[] {
  const seen = new Uint8Array(row.length);
  for (const expert of row) {
    // Outside of the list, `seen` holds nothing.
    if (!Number.isInteger(expert) || seen[expert as number] !== 0) return false;
    seen[expert as number] = 1;
  }
  return true;
}
